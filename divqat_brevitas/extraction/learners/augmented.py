"""An attacker that trains its clone on shifted, and where that is natural mirrored, images.

The response belongs to the image that was asked; every step sees another version of it. No query
more. It makes a stronger clone of an honest victim, as KnockoffNets' own training does (Orekondy
et al., CVPR 2019, code: random crops and flips), and one that is harder to mislead: wrong labels
that follow no rule are not learned by heart.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.learners.base import (
    Learner,
    TrainedClone,
    TransferSet,
    WrappingLearner,
)
from divqat_brevitas.extraction.surrogates.training import Epoch


@dataclass(frozen=True, kw_only=True)
class AugmentedLearner(WrappingLearner):
    """Has another learner train on augmented images.

    Args:
        base: what is trained; its own shifts and flips are replaced, also those of a learner
            that it stands before.
        shift: up to so many pixels in each direction, zeros moving in.
        flip: mirror half of the images; not for digits, letters or signs.

    Raises:
        InputError: a shift below 1; a base that trains nothing with such settings.

    Example:
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

    def learn(
        self,
        transfer_set: TransferSet,
        seed: int,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> TrainedClone:
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
            raise InputError(f"no image can be augmented for the learner {learner.name!r}.")
        changed: Learner = about
        return changed
