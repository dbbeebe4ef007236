"""The zero-query floor: what an attacker has without asking the victim anything.

An attack has stolen something only in so far as its clone is better than this.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import check_labels, check_pool, substream
from divqat_brevitas.extraction.evaluation.metrics import accuracy
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet


@dataclass(frozen=True)
class ZeroQueryFloor:
    """Accuracies, fractions of 1, of clones that cost no query.

    Attributes:
        chance: of guessing each class alike: 1 / classes.
        majority: of always naming the test set's most frequent class, which no attacker knows: the
            best that any constant clone could do.
        random_labels: of the best clone, over seeds, trained on the attacker's images with labels
            drawn at random: what its network and its images bring along by themselves.
        own_labels: of the best clone trained on labels that the attacker has itself; None without
            any.
    """

    chance: float
    majority: float
    random_labels: float
    own_labels: float | None = None

    @property
    def best(self) -> float:
        """The largest of them: what an attack has to beat."""
        known = (self.chance, self.majority, self.random_labels, self.own_labels)
        return max(value for value in known if value is not None)


def zero_query_floor(
    images: NDArray[Any],
    test: NDArray[Any],
    test_labels: NDArray[Any],
    classes: int,
    *,
    labels: NDArray[Any] | None = None,
    learner: Learner | None = None,
    seeds: int = 3,
) -> ZeroQueryFloor:
    """Measure the floor for an attacker's images and learner.

    The test set is only measured on; it belongs to the evaluator, as everywhere.

    Args:
        images: the attacker's, uint8 or float32 in [0, 1], (N, C, H, W), at least 2: its pool, or
            the seed images of an attack that starts from few.
        test: images to measure on, uint8 or float32 in [0, 1], NCHW.
        test_labels: their classes, integers (M,).
        classes: of the victim, at least 2.
        labels: classes of the attacker's images in the victim's own numbering, (N,), if it has
            them; else the attacker knows no label.
        learner: the attacker's; a :class:`PlainLearner` if None.
        seeds: clones of each kind, at least 1; the best counts.

    Raises:
        InputError: bad images or labels, or no seed.

    Example:
        >>> images = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> labels = np.array([0] * 30 + [1] * 10)
        >>> floor = zero_query_floor(images, images, labels, 2, learner=learner, seeds=1)
        >>> floor.chance, floor.majority, floor.best >= 0.75
        (0.5, 0.75, True)
    """
    images = check_pool(images, "the attacker's images")
    test_labels = check_labels(test_labels, len(test), "the test labels")
    if classes < 2 or test_labels.max() >= classes:
        raise InputError(
            f"a floor needs at least 2 classes and test labels below their number, but has "
            f"{classes} classes and a label {test_labels.max()}."
        )
    if seeds < 1:
        raise InputError(f"a floor needs at least 1 seed, not {seeds}.")
    learner = learner or PlainLearner()

    def best(targets: list[NDArray[np.int64]]) -> float:
        one_hot = np.eye(classes, dtype=np.float32)
        clones = [
            learner.learn(TransferSet(images, one_hot[given]), seed).clone
            for seed, given in enumerate(targets)
        ]
        return max(accuracy(clone, test, test_labels) for clone in clones)

    drawn = [
        substream(seed, "random labels").integers(classes, size=len(images))
        for seed in range(seeds)
    ]
    own = None
    if labels is not None:
        own = check_labels(labels, len(images), "the attacker's labels")
        if own.max() >= classes:
            raise InputError(
                f"the attacker's labels must lie in 0..{classes - 1}, but one is {own.max()}."
            )
    return ZeroQueryFloor(
        chance=1 / classes,
        majority=float(np.bincount(test_labels).max() / len(test_labels)),
        random_labels=best(drawn),
        own_labels=None if own is None else best([own] * seeds),
    )
