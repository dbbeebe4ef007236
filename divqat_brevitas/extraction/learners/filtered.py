"""An attacker that knows a decoy when it sees one, and does not train on it.

A defence that answers foreign images with a decoy gives itself away by its statistics: one class
far more often than the others, or one profile of probabilities over and over, whichever the class.
The attacker needs the responses alone to see it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.learners.base import TrainedClone, TransferSet, WrappingLearner
from divqat_brevitas.extraction.learners.targets import drop_top
from divqat_brevitas.extraction.surrogates.training import Epoch

SMALLEST_SHARE = 0.05


def find_decoys(responses: Responses, excess: float = 10.0) -> NDArray[np.bool_]:
    """The responses that look like decoys, bool (N,).

    Two signs, the precise one first:

    1. One profile (the probabilities in descending order, to three decimals of their logarithm),
       confident or flat, makes up at least 5 % of the responses, while nine of ten of the others
       are unique. A coarse oracle, whose responses all repeat, shows no such sign.
    2. Among the rest, the modal class is answered ``excess`` times as often as the mean other
       class: all of its responses, the honest ones too, for nothing tells them apart.

    Args:
        responses: on the scale of probabilities, float32 (N, classes).
        excess: see sign 2, above 1.

    Example:
        >>> honest = np.random.default_rng(0).dirichlet(np.ones(4), 90)
        >>> decoys = np.tile([0.91, 0.03, 0.03, 0.03], (10, 1))
        >>> found = find_decoys(np.concatenate([honest, decoys]).astype(np.float32))
        >>> int(found[:90].sum()), int(found[90:].sum())
        (0, 10)
    """
    decoys = _repeated_profile(responses)
    rest = np.flatnonzero(~decoys)
    decoys[rest] = _modal_class(responses[rest], excess)
    return decoys


def _modal_class(responses: Responses, excess: float) -> NDArray[np.bool_]:
    classes = responses.shape[1]
    labels = responses.argmax(axis=1)
    informative = responses.any(axis=1)
    counts = np.bincount(labels[informative], minlength=classes)
    modal = int(counts.argmax())
    others = (counts.sum() - counts[modal]) / (classes - 1)
    if counts[modal] <= excess * others:
        return np.zeros(len(responses), np.bool_)
    decoys: NDArray[np.bool_] = informative & (labels == modal)
    return decoys


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
    decoys: NDArray[np.bool_] = inverse == top
    return decoys


@dataclass(frozen=True, kw_only=True)
class FilteredLearner(WrappingLearner):
    """Finds the decoys among the responses, and lets another learner have the rest.

    If fewer than 20 responses, or two a class, would be left, it keeps them all. With ``unmask``
    the decoys stay, without their top class: what a decoy adds to a mixture comes off again. Aimed
    at defences that response out-of-distribution queries with a decoy; ``TrainedClone.notes`` has
    "responses" and "decoys".

    Args:
        base: learns from what is left.
        excess: see :func:`find_decoys`.
        unmask: drop the decoys' top class instead of the decoys.

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

    def learn(
        self,
        transfer_set: TransferSet,
        seed: int,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> TrainedClone:
        """Train a clone on what is left."""
        decoys = find_decoys(transfer_set.responses, self.excess)
        if len(decoys) - decoys.sum() < max(20, 2 * transfer_set.classes):
            decoys[:] = False
        learned = self.base.learn(self._without(transfer_set, decoys), seed, on_epoch)
        notes = {"responses": len(decoys), "decoys": int(decoys.sum())}
        return TrainedClone(learned.clone, learned.history, learned.notes | notes)

    def _without(self, transfer_set: TransferSet, decoys: NDArray[np.bool_]) -> TransferSet:
        if not self.unmask:
            return TransferSet(transfer_set.images[~decoys], transfer_set.responses[~decoys])
        responses = np.where(
            decoys[:, None], drop_top(transfer_set.responses), transfer_set.responses
        )
        return TransferSet(transfer_set.images, responses)
