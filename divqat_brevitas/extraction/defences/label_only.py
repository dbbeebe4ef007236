"""The label-only fallback, "gate": only the label where the out-of-distribution class is likely.

A network trained with the preset "decoy" (:mod:`divqat_brevitas.quant.loss`) gives one class to
out-of-distribution inputs. Their label carries no information, but the order of the other classes'
probabilities does: an attacker that subtracts each class's median recovers it. The fallback shows
only the label of such responses and leaves the others unchanged. It is ours, not from a paper.
"""

from dataclasses import dataclass

import numpy as np

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.defences.base import NumberedDefence
from divqat_brevitas.extraction.defences.truncation import Top1


@dataclass(frozen=True)
class LabelOnlyFallback(NumberedDefence):
    """One-hot responses where one class is the label or has at least a threshold probability.

    Args:
        reject_class: index of the class, as in the loss's settings.
        threshold: probability of that class from which only the label is shown, in (0, 1].

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
    reject_class: int = 0
    threshold: float = 0.05

    def __post_init__(self) -> None:
        if self.reject_class != int(self.reject_class) or self.reject_class < 0:
            raise InputError(
                f"defence 'gate' takes the out-of-distribution class, a whole number from 0, "
                f"not {self.reject_class!r}."
            )
        if not 0 < self.threshold <= 1:
            raise InputError(
                f"defence 'gate': the threshold must lie above 0 and be at most 1, "
                f"but is {self.threshold!r}."
            )

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """The rows, one-hot where the out-of-distribution class is likely; float32 (N, classes).

        Raises:
            InputError: the network has no such class.
        """
        classes = probabilities.shape[1]
        if self.reject_class >= classes:
            raise InputError(
                f"defence {self.name!r}: the network has classes 0 to {classes - 1} only."
            )
        label = probabilities.argmax(axis=1) == self.reject_class
        fallback = label | (probabilities[:, self.reject_class] >= np.float32(self.threshold))
        return np.where(fallback[:, None], Top1().perturb(images, probabilities), probabilities)
