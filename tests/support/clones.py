"""Clones of small victims: without queries, and from responses whose clean form is known."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.extraction import Learner, PlainLearner, TorchPredictor, TransferSet, accuracy
from divqat_brevitas.extraction.arrays import substream
from divqat_brevitas.extraction.learners.recovery import ShadowPairs
from divqat_brevitas.extraction.oracles import softmax

F32 = NDArray[np.float32]


def plain(targets: str = "soft", epochs: int = 8) -> PlainLearner:
    return PlainLearner(surrogate="mlp", targets=targets, epochs=epochs)


def clean_responses(digits, count: int = 700) -> F32:
    return softmax(TorchPredictor(digits.model).predict(digits.pool[:count] / np.float32(255)))


def one_hot(labels: NDArray[np.int64], classes: int = 10) -> F32:
    return np.eye(classes, dtype=np.float32)[labels]


def clone_accuracy(learner: Learner, digits, responses: F32, seed: int = 0) -> float:
    """Test accuracy of the clone learnt from the pool's first images and these responses."""
    learned = learner.learn(TransferSet(digits.pool[: len(responses)], responses), seed)
    return accuracy(learned.clone, digits.test, digits.test_labels)


class RolledDefence:
    """A known perturbation of probabilities: flattened, and moved one class up."""

    name = "rolled"
    settings: dict[str, float] = {}  # noqa: RUF012

    def perturb(self, images: F32, probabilities: F32) -> F32:
        flat = np.roll(probabilities.astype(np.float64) ** 0.3, 1, axis=1)
        return (flat / flat.sum(axis=1, keepdims=True)).astype(np.float32)


def rolled_pairs(classes: int, count: int) -> ShadowPairs:
    """What the rolled defence makes of probabilities from a flat Dirichlet distribution."""
    alpha = np.full(classes, 1 / classes)
    clean = substream(0, "shadow").dirichlet(alpha, count).astype(np.float32)
    return ShadowPairs(RolledDefence().perturb(clean, clean), clean)


def zero_query_accuracy(
    images: NDArray[Any],
    test: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    learner: PlainLearner,
    seeds: int = 3,
) -> float:
    """The best of a constant clone and of clones trained on ``images`` with random labels.

    An attack has to beat it.
    """
    constant = float(np.bincount(labels).max() / len(labels))
    one_hot = np.eye(classes, dtype=np.float32)
    drawn = (
        one_hot[substream(seed, "random labels").integers(classes, size=len(images))]
        for seed in range(seeds)
    )
    clones = (learner.learn(TransferSet(images, y), seed).clone for seed, y in enumerate(drawn))
    return max(constant, *(accuracy(clone, test, labels) for clone in clones))
