"""Asking twice: what is counted, what is kept, and what that gains against keyed wrong labels."""

import json

import numpy as np
import pytest
from zero_query import zero_query_accuracy

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    KnockoffNets,
    PlainLearner,
    StableQueries,
    TorchPredictor,
    Victim,
    accuracy,
    make_attack,
)
from divqat_brevitas.extraction.arrays import to_float

LEARNER = PlainLearner(surrogate="mlp", epochs=20)


class Keyed:
    """Right labels for images that are not heavier on the left; a keyed wrong one for the others.

    Which images get wrong labels survives small changes, the key does not: it reads fine detail.
    """

    def __init__(self, model) -> None:
        self.right = TorchPredictor(model)
        self.key = np.random.default_rng(7).integers(1, 1000, 64)

    def predict(self, images):
        labels = self.right.predict(images).argmax(axis=1)
        digest = np.round(images.reshape(len(images), -1) * 255).astype(np.int64) @ self.key
        columns = images.sum(axis=(1, 2))
        rejected = columns @ np.arange(8) < 3.5 * columns.sum(axis=1)
        labels = np.where(rejected, (labels + 1 + digest % 3) % 10, labels)
        return 20 * np.eye(10, dtype=np.float32)[labels]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("budget", [2, 97, 400, 10_000])
def test_every_version_is_counted_and_in_the_unit_range(flip, budget, spy) -> None:
    pool = np.random.default_rng(5).integers(0, 256, (60, 1, 8, 8), np.uint8)
    victim = Victim(spy, "top1", budget=budget)
    learner = PlainLearner(surrogate="mlp", epochs=1)
    result = StableQueries(learner, flip=flip).run(victim, pool)
    asked = np.concatenate(spy.asked)
    assert result.queries_used == victim.queries_used == len(asked) == len(result.indices)
    assert result.queries_used == budget or set(result.indices) == set(range(60))
    assert 0 <= asked.min() <= asked.max() <= 1
    assert result.rounds[-1]["queries"] == result.queries_used
    versions = np.bincount(result.indices)
    assert versions.max() <= 3 + flip
    json.dumps([result.settings, result.rounds])


def test_a_constant_victim_is_stable_and_an_empty_response_is_not(make_spy) -> None:
    pool = np.random.default_rng(5).integers(0, 256, (60, 1, 8, 8), np.uint8)

    class Constant(make_spy):
        def predict(self, images):
            return np.tile(np.array([[5, 0, 0]], np.float32), (len(images), 1))

    learner = PlainLearner(surrogate="mlp", epochs=1)
    constant = StableQueries(learner).run(Victim(Constant(), "top1", budget=500), pool)
    assert constant.rounds[-1] == {"queries": 180, "images": 60, "stable": 60}

    class Half(make_spy):
        """One image in two says nothing behind a coarse oracle."""

        def predict(self, images):
            sure = images[:, 0].sum(axis=(1, 2)) > 32
            return np.where(sure[:, None], np.array([[20, 0, 0]]), 0).astype(np.float32)

    half = Victim(Half(), "rounded", decimals=0, budget=500)
    assert 0 < StableQueries(learner).run(half, pool).rounds[-1]["stable"] < 60


class Watching:
    """A learner that keeps what it was given."""

    name, surrogate, settings = "soft", "mlp", {}

    def learn(self, transfer_set, seed, on_epoch=None):
        self.transfer_set = transfer_set
        return LEARNER.learn(transfer_set, seed, on_epoch)


def test_it_sees_through_wrong_labels_that_follow_fine_detail(digits) -> None:
    """Truer labels than those of random queries, and a better clone where images are the limit."""
    accuracies, shares = [], []
    for attack in (KnockoffNets, StableQueries):
        learner = Watching()
        victim = Victim(Keyed(digits.model), "top1", budget=2000)
        clone = attack(learner).run(victim, digits.pool).clone
        accuracies.append(accuracy(clone, digits.test, digits.test_labels))
        right = TorchPredictor(digits.model).predict(to_float(learner.transfer_set.images))
        labels = learner.transfer_set.responses.argmax(axis=1)
        shares.append(float((right.argmax(axis=1) == labels).mean()))
    assert shares[1] > shares[0] + 0.2
    assert accuracies[1] > accuracies[0] + 0.05


@pytest.mark.parametrize("name", ["knockoff-stable", "knockoff-stable-mirrored"])
def test_it_beats_a_clone_without_queries(name: str, digits) -> None:
    attack = make_attack(name, LEARNER)
    assert attack.name == name
    result = attack.run(Victim(digits.model, budget=400), digits.pool)
    floor = zero_query_accuracy(digits.pool, digits.test, digits.test_labels, 10, LEARNER, seeds=2)
    assert accuracy(result.clone, digits.test, digits.test_labels) > floor + 0.2


def test_refusals() -> None:
    with pytest.raises(InputError, match="brightness=1"):
        StableQueries(brightness=1.0)
    with pytest.raises(InputError, match="shift=-1"):
        StableQueries(shift=-1)
