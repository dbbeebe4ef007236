"""Learners that change the transfer set: augmented images, or no out-of-distribution targets.

Each training step on augmented images sees another version of the queried image, with the response
to the image itself; no further query is needed. The clone of an undefended victim gets better, as
with KnockoffNets' own training (Orekondy et al., CVPR 2019, code: random crops and flips). The
clone also memorises fewer wrong labels that follow no rule.

A defence that gives one response to all out-of-distribution images shows in the statistics of its
responses: one class is far more frequent than the others, or one profile of probabilities repeats.
The attacker needs only the responses to find it.
"""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, Within
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.learners.base import (
    Learner,
    TrainedClone,
    TransferSet,
    WrappingLearner,
)
from divqat_brevitas.extraction.learners.targets import drop_top
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

    shift: Annotated[int, Within(low=1)] = 2
    flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
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


SMALLEST_SHARE = 0.05


def find_ood_targets(responses: Responses, excess: float = 10.0) -> NDArray[np.bool_]:
    """Mark the responses that look like out-of-distribution targets, bool (N,).

    There are two signs, the precise one first:

    1. One profile (the probabilities in descending order, to three decimals of their logarithm),
       confident or flat, makes up at least 5 % of the responses, while nine of ten of the others
       are unique. A coarse oracle, whose responses all repeat, does not show this sign.
    2. Among the rest, the modal class is ``excess`` times as frequent as the mean other class. All
       of its responses are marked, the honest ones too: nothing distinguishes them.

    Args:
        responses: on the scale of probabilities, float32 (N, classes).
        excess: see sign 2, above 1.

    Example:
        >>> honest = np.random.default_rng(0).dirichlet(np.ones(4), 90)
        >>> constant = np.tile([0.91, 0.03, 0.03, 0.03], (10, 1))
        >>> found = find_ood_targets(np.concatenate([honest, constant]).astype(np.float32))
        >>> int(found[:90].sum()), int(found[90:].sum())
        (0, 10)
    """
    marked = _repeated_profile(responses)
    rest = np.flatnonzero(~marked)
    marked[rest] = _modal_class(responses[rest], excess)
    return marked


def _modal_class(responses: Responses, excess: float) -> NDArray[np.bool_]:
    classes = responses.shape[1]
    labels = responses.argmax(axis=1)
    informative = responses.any(axis=1)
    counts = np.bincount(labels[informative], minlength=classes)
    modal = int(counts.argmax())
    others = (counts.sum() - counts[modal]) / (classes - 1)
    if counts[modal] <= excess * others:
        return np.zeros(len(responses), np.bool_)
    marked: NDArray[np.bool_] = informative & (labels == modal)
    return marked


def _repeated_profile(responses: Responses) -> NDArray[np.bool_]:
    # Relative precision: saturated honest responses differ in their smallest entries only.
    profiles = np.log10(np.maximum(-np.sort(-responses.astype(np.float64), axis=1), 1e-30)).round(3)
    _, inverse, counts = np.unique(profiles, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    top = int(counts.argmax())
    rest = len(responses) - counts[top]
    enough = counts[top] >= max(3, SMALLEST_SHARE * len(responses))
    if not enough or rest == 0 or (len(counts) - 1) < 0.9 * rest:
        return np.zeros(len(responses), np.bool_)
    marked: NDArray[np.bool_] = inverse == top
    return marked


@dataclass(frozen=True, kw_only=True)
class FilteredLearner(WrappingLearner):
    """Removes responses that look like out-of-distribution targets, then trains another learner.

    If fewer than 20 responses, or two a class, would be left, all are used. With ``unmask`` the
    marked responses stay, without their top class: this removes what a defence mixes into the true
    response. Aimed at defences that answer out-of-distribution queries with one class;
    ``TrainedClone.notes`` has the numbers of "responses" and of "ood_targets".

    Args:
        base: learns from the remaining responses.
        excess: see :func:`find_ood_targets`.
        unmask: remove the top class of the marked responses instead of the responses.
    """

    excess: Annotated[float, Within(above=1)] = 10.0
    unmask: bool = False

    @property
    def prefix(self) -> str:
        """Either "filtered" or "unmasked"."""
        return "unmasked" if self.unmask else "filtered"

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Train a clone on the remaining responses."""
        marked = find_ood_targets(transfer_set.responses, self.excess)
        if len(marked) - marked.sum() < max(20, 2 * transfer_set.classes):
            marked[:] = False
        learned = self.base.learn(self._without(transfer_set, marked), seed, on_epoch)
        notes = {"responses": len(marked), "ood_targets": int(marked.sum())}
        return TrainedClone(learned.clone, learned.history, learned.notes | notes)

    def _without(self, transfer_set: TransferSet, marked: NDArray[np.bool_]) -> TransferSet:
        if not self.unmask:
            return TransferSet(transfer_set.images[~marked], transfer_set.responses[~marked])
        responses = np.where(
            marked[:, None], drop_top(transfer_set.responses), transfer_set.responses
        )
        return TransferSet(transfer_set.images, responses)
