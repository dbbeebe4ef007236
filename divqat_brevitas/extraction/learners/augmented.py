"""Training on shifted images and, where that is natural, mirrored ones.

Each step sees another version of the queried image, with the response to the image itself; no
further query is needed. The clone of an undefended victim gets better, as with KnockoffNets' own
training (Orekondy et al., CVPR 2019, code: random crops and flips). The clone also memorises fewer
wrong labels that follow no rule.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.learners.base import (
    Learner,
    TrainedClone,
    TransferSet,
    WrappingLearner,
)
from divqat_brevitas.extraction.surrogates.training import OnEpoch


@dataclass(frozen=True, kw_only=True)
class AugmentedLearner(WrappingLearner):
    """Lets another learner train on augmented images.

    Args:
        base: trains the clone; this learner replaces its shifts and flips, also those of a
            learner further inside.
        shift: largest shift in pixels, in each direction; zeros fill the border.
        flip: mirror half of the images; not for digits, letters or signs.

    Raises:
        InputError: a shift below 1, or a base without such training settings.

    Example:
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> AugmentedLearner(base=PlainLearner(targets="argmax"), flip=True).name
        'mirrored-argmax'
    """

    shift: int = 2
    flip: bool = False

    def __post_init__(self) -> None:
        if self.shift < 1:
            raise InputError(f"AugmentedLearner: shift must be 1 or more, but is {self.shift}.")
        self._augmented(self.base)

    @property
    def prefix(self) -> str:
        """Either "shifted" or "mirrored"."""
        return "mirrored" if self.flip else "shifted"

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Train a clone as the base does, on augmented images."""
        return self._augmented(self.base).learn(transfer_set, seed, on_epoch)

    def _augmented(self, learner: Learner) -> Learner:
        about: Any = learner
        names = {f.name for f in fields(about)}
        if "training" in names:
            training = replace(about.training, shift=self.shift, flip=self.flip)
            about = replace(about, training=training)
        elif "base" in names:
            about = replace(about, base=self._augmented(about.base))
        else:
            raise InputError(
                f"the learner {learner.name!r} has no training settings for augmentation."
            )
        changed: Learner = about
        return changed
