"""Training without the responses that look like out-of-distribution targets.

A defence that gives one answer to all out-of-distribution images shows in the statistics of its
responses: one class is far more frequent than the others, or one profile of probabilities repeats.
The attacker needs only the responses to find it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.learners.base import TrainedClone, TransferSet, WrappingLearner
from divqat_brevitas.extraction.learners.targets import drop_top
from divqat_brevitas.extraction.surrogates.training import OnEpoch

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

    Raises:
        InputError: ``excess`` not above 1.
    """

    excess: float = 10.0
    unmask: bool = False

    def __post_init__(self) -> None:
        if not self.excess > 1:
            raise InputError(f"FilteredLearner: excess must be above 1, but is {self.excess}.")

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
