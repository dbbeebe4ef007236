"""A defence: mix the answer with the uniform distribution. The label stays."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.defences.base import check_range, distributions, spelled
from divqat_brevitas.extraction.defences.catalogue import DefenceEntry


@dataclass(frozen=True)
class Uniform:
    """Answers ``(1 - strength) y + strength / classes``.

    Args:
        strength: from 0 (nothing) to 1 (every class equally likely).
    """

    strength: float

    def __post_init__(self) -> None:
        check_range("uniform", "strength", self.strength, 0, 1)

    @property
    def name(self) -> str:
        """What results call it, such as "uniform:0.5"."""
        return spelled("uniform", self.strength)

    @property
    def settings(self) -> dict[str, Any]:
        """Its parameters."""
        return {"strength": self.strength}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Perturbed probabilities, float32 (N, classes)."""
        del images  # the same for every image
        y = probabilities.astype(np.float64)
        return distributions((1 - self.strength) * y + self.strength / y.shape[1])


ENTRY = DefenceEntry(
    make=lambda numbers, material, seed: Uniform(numbers[0]),
    defaults=(0.5,),
    source="worked example of a plug-in",
    keeps_label=True,
    hardware="table: one multiplication and one addition for each probability",
    strengths=(0, 0.99),  # so that "uniform@0.2" finds the strength of that cost
)
