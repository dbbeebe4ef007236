"""The accuracy of clones that cost no query: an attack has to beat it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.extraction import PlainLearner, TransferSet, accuracy
from divqat_brevitas.extraction.arrays import substream


def zero_query_accuracy(
    images: NDArray[Any],
    test: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    learner: PlainLearner,
    seeds: int = 3,
) -> float:
    """The best of a constant clone and of clones trained on ``images`` with random labels."""
    constant = float(np.bincount(labels).max() / len(labels))
    one_hot = np.eye(classes, dtype=np.float32)
    drawn = (
        one_hot[substream(seed, "random labels").integers(classes, size=len(images))]
        for seed in range(seeds)
    )
    clones = (learner.learn(TransferSet(images, y), seed).clone for seed, y in enumerate(drawn))
    return max(constant, *(accuracy(clone, test, labels) for clone in clones))
