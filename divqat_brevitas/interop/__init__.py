"""A victim as other toolboxes take it: ART's classifiers, torch callables.

Every image that a toolbox asks goes through :meth:`Victim.query`, so the ledger counts it and the
budget stops it. The names are imported when first used: ART is an optional extra.

Example:
    >>> import numpy as np, torch
    >>> from divqat_brevitas.extraction import Victim
    >>> from divqat_brevitas.interop import as_torch_callable
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> victim = Victim(model, oracle="soft", budget=5)
    >>> as_torch_callable(victim)(torch.zeros(2, 1, 8, 8)).shape, victim.queries_used
    (torch.Size([2, 10]), 2)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divqat_brevitas.interop.art import as_art_classifier
    from divqat_brevitas.interop.callables import GradientError, as_torch_callable

_HOMES = {
    "as_art_classifier": "divqat_brevitas.interop.art",
    "GradientError": "divqat_brevitas.interop.callables",
    "as_torch_callable": "divqat_brevitas.interop.callables",
}

__all__ = ["GradientError", "as_art_classifier", "as_torch_callable"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
