"""The gate that goes with the decoy: where the decoy class is in play, the label alone is shown.

A network trained with the preset "decoy" (:mod:`divqat_brevitas.quant.loss`) gives one class to
inputs of another kind than its own. The label then tells nothing, but the order of the other
classes' probabilities still does: an attacker who subtracts each class's mean reads it off. The
gate cuts that off, and leaves answers without the decoy class as they are. Ours; not from a paper.
"""

from dataclasses import dataclass

import numpy as np

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.defences.base import NumberedDefence
from divqat_brevitas.extraction.defences.truncation import Top1


@dataclass(frozen=True)
class LabelOnlyFallback(NumberedDefence):
    """One-hot responses wherever the decoy class is the label or has ``threshold`` probability.

    Args:
        decoy_class: index of the class, as in the loss's settings.
        threshold: probability of it from which the label alone is shown, in (0, 1].

    Raises:
        InputError: a class below 0 or no whole number; a threshold out of range.

    Example:
        >>> rows = np.float32([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.01, 0.6, 0.39]])
        >>> LabelOnlyFallback(0).perturb(np.zeros((3, 1, 8, 8), np.float32), rows)
        array([[1.  , 0.  , 0.  ],
               [0.  , 1.  , 0.  ],
               [0.01, 0.6 , 0.39]], dtype=float32)
    """

    family = "gate"
    decoy_class: int = 0
    threshold: float = 0.05

    def __post_init__(self) -> None:
        if self.decoy_class != int(self.decoy_class) or self.decoy_class < 0:
            raise InputError(
                f"defence 'gate' takes the decoy's class, a whole number from 0, "
                f"not {self.decoy_class!r}."
            )
        if not 0 < self.threshold <= 1:
            raise InputError(
                f"defence 'gate': the threshold must lie above 0 and be at most 1, "
                f"but is {self.threshold!r}."
            )

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """The rows, those with the decoy class in play one-hot; float32 (N, classes).

        Raises:
            InputError: the network has no such class.
        """
        classes = probabilities.shape[1]
        if self.decoy_class >= classes:
            raise InputError(
                f"defence {self.name!r}: the network has classes 0 to {classes - 1} only."
            )
        label = probabilities.argmax(axis=1) == self.decoy_class
        gated = label | (probabilities[:, self.decoy_class] >= np.float32(self.threshold))
        return np.where(gated[:, None], Top1().perturb(images, probabilities), probabilities)
