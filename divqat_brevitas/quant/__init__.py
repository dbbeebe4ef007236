"""Drop-in Brevitas quantizers with learned scales and an export that cannot lie.

Example:
    >>> from brevitas.nn import QuantConv2d, QuantReLU
    >>> conv = QuantConv2d(3, 8, 3, weight_quant=Int4WeightPerChannelFloatDivQAT)
    >>> relu = QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)
"""

from divqat_brevitas.quant import quantizers
from divqat_brevitas.quant.input_fit import InputRangeWarning
from divqat_brevitas.quant.proxy import register_export_handlers
from divqat_brevitas.quant.quantizers import *  # noqa: F403  (38 names of one grammar)
from divqat_brevitas.quant.validate import validate_quantizer

register_export_handlers()

__all__ = ["InputRangeWarning", "validate_quantizer"]
__all__ += quantizers.__all__
