"""DivQAT quantizers, loss and model-extraction attacks for Brevitas users.

The names below are imported when first used, so that ``import divqat_brevitas`` costs
nothing on top of what the program needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divqat_brevitas.copies import freeze_reference
    from divqat_brevitas.quant.loss import DivQATLoss
    from divqat_brevitas.quant.swap import swap_quantizers

__version__ = "0.1.0"

_HOMES = {
    "DivQATLoss": "divqat_brevitas.quant.loss",
    "freeze_reference": "divqat_brevitas.copies",
    "swap_quantizers": "divqat_brevitas.quant.swap",
}

__all__ = ["DivQATLoss", "freeze_reference", "swap_quantizers"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
