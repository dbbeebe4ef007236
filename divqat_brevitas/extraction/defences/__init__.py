"""Defences at the interface: they change a network's responses, not its weights.

>>> [row.name for row in defence_table()][:4]
['none', 'top1', 'topk', 'rounding']
"""

from divqat_brevitas.extraction.defences.base import (
    Composition,
    Defence,
    DefendedPredictor,
    Undefended,
)
from divqat_brevitas.extraction.defences.catalogue import (
    FAMILIES,
    DefenceMaterial,
    DefenceRow,
    check_defence_name,
    defence_table,
    family,
    make_defence,
    split_target,
)
from divqat_brevitas.extraction.defences.cost import (
    AtCost,
    Calibration,
    Cost,
    OutOfReachError,
    at_cost,
    calibrate,
    cost,
    cost_of,
)
from divqat_brevitas.extraction.defences.grad2 import GradientRedirection, train_redirection
from divqat_brevitas.extraction.defences.mad import MAD
from divqat_brevitas.extraction.defences.networks import (
    AdaptiveMisinformation,
    EnsembleOfDiverseModels,
    train_misinformation,
)
from divqat_brevitas.extraction.defences.perturbation import DCP, GaussianNoise, ReverseSigmoid
from divqat_brevitas.extraction.defences.truncation import (
    KeyedMisdirection,
    LabelOnlyFallback,
    Rounding,
    Top1,
    TopK,
)

__all__ = [
    "DCP",
    "FAMILIES",
    "MAD",
    "AdaptiveMisinformation",
    "AtCost",
    "Calibration",
    "Composition",
    "Cost",
    "Defence",
    "DefenceMaterial",
    "DefenceRow",
    "DefendedPredictor",
    "EnsembleOfDiverseModels",
    "GaussianNoise",
    "GradientRedirection",
    "KeyedMisdirection",
    "LabelOnlyFallback",
    "OutOfReachError",
    "ReverseSigmoid",
    "Rounding",
    "Top1",
    "TopK",
    "Undefended",
    "at_cost",
    "calibrate",
    "check_defence_name",
    "cost",
    "cost_of",
    "defence_table",
    "family",
    "make_defence",
    "split_target",
    "train_misinformation",
    "train_redirection",
]
