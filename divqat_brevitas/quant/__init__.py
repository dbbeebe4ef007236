"""Drop-in Brevitas quantizers with learned scales and an export that cannot lie.

Example:
    >>> from brevitas.nn import QuantConv2d, QuantReLU
    >>> conv = QuantConv2d(3, 8, 3, weight_quant=Int4WeightPerChannelFloatDivQAT)
    >>> relu = QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)
"""

from divqat_brevitas.quant.activations import (
    Int2ActPerTensorFixedPointDivQAT,
    Int2ActPerTensorFloatDivQAT,
    Int3ActPerTensorFixedPointDivQAT,
    Int3ActPerTensorFloatDivQAT,
    Int4ActPerTensorFixedPointDivQAT,
    Int4ActPerTensorFloatDivQAT,
    Int8ActPerTensorFixedPointDivQAT,
    Int8ActPerTensorFloatDivQAT,
    Uint2ActPerTensorFixedPointDivQAT,
    Uint2ActPerTensorFloatDivQAT,
    Uint3ActPerTensorFixedPointDivQAT,
    Uint3ActPerTensorFloatDivQAT,
    Uint4ActPerTensorFixedPointDivQAT,
    Uint4ActPerTensorFloatDivQAT,
    Uint8ActPerTensorFixedPointDivQAT,
    Uint8ActPerTensorFloatDivQAT,
    Uint8ImageDivQAT,
)
from divqat_brevitas.quant.input_fit import InputRangeWarning
from divqat_brevitas.quant.proxy import register_export_handlers
from divqat_brevitas.quant.validate import validate_quantizer
from divqat_brevitas.quant.weights import (
    Int2WeightPerChannelFixedPointDivQAT,
    Int2WeightPerChannelFloatDivQAT,
    Int2WeightPerTensorFixedPointDivQAT,
    Int2WeightPerTensorFloatDivQAT,
    Int3WeightPerChannelFixedPointDivQAT,
    Int3WeightPerChannelFloatDivQAT,
    Int3WeightPerTensorFixedPointDivQAT,
    Int3WeightPerTensorFloatDivQAT,
    Int4WeightPerChannelFixedPointDivQAT,
    Int4WeightPerChannelFloatDivQAT,
    Int4WeightPerTensorFixedPointDivQAT,
    Int4WeightPerTensorFloatDivQAT,
    Int8WeightPerChannelFixedPointDivQAT,
    Int8WeightPerChannelFloatDivQAT,
    Int8WeightPerTensorFixedPointDivQAT,
    Int8WeightPerTensorFloatDivQAT,
)

register_export_handlers()

__all__ = [
    "InputRangeWarning",
    "Int2ActPerTensorFixedPointDivQAT",
    "Int2ActPerTensorFloatDivQAT",
    "Int2WeightPerChannelFixedPointDivQAT",
    "Int2WeightPerChannelFloatDivQAT",
    "Int2WeightPerTensorFixedPointDivQAT",
    "Int2WeightPerTensorFloatDivQAT",
    "Int3ActPerTensorFixedPointDivQAT",
    "Int3ActPerTensorFloatDivQAT",
    "Int3WeightPerChannelFixedPointDivQAT",
    "Int3WeightPerChannelFloatDivQAT",
    "Int3WeightPerTensorFixedPointDivQAT",
    "Int3WeightPerTensorFloatDivQAT",
    "Int4ActPerTensorFixedPointDivQAT",
    "Int4ActPerTensorFloatDivQAT",
    "Int4WeightPerChannelFixedPointDivQAT",
    "Int4WeightPerChannelFloatDivQAT",
    "Int4WeightPerTensorFixedPointDivQAT",
    "Int4WeightPerTensorFloatDivQAT",
    "Int8ActPerTensorFixedPointDivQAT",
    "Int8ActPerTensorFloatDivQAT",
    "Int8WeightPerChannelFixedPointDivQAT",
    "Int8WeightPerChannelFloatDivQAT",
    "Int8WeightPerTensorFixedPointDivQAT",
    "Int8WeightPerTensorFloatDivQAT",
    "Uint2ActPerTensorFixedPointDivQAT",
    "Uint2ActPerTensorFloatDivQAT",
    "Uint3ActPerTensorFixedPointDivQAT",
    "Uint3ActPerTensorFloatDivQAT",
    "Uint4ActPerTensorFixedPointDivQAT",
    "Uint4ActPerTensorFloatDivQAT",
    "Uint8ActPerTensorFixedPointDivQAT",
    "Uint8ActPerTensorFloatDivQAT",
    "Uint8ImageDivQAT",
    "validate_quantizer",
]
