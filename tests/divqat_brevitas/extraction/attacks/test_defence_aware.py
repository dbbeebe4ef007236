"""Attackers who know of a defence: one avoids rejections, one asks twice for stable labels."""

import json

import numpy as np
import pytest
from clones import zero_query_accuracy

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    KnockoffNets,
    PlainLearner,
    RejectionAvoider,
    StableQueries,
    Substitute,
    TorchPredictor,
    Victim,
    accuracy,
    make_attack,
    make_learner,
)
from divqat_brevitas.extraction.arrays import to_float

LEARNER = PlainLearner(surrogate="mlp", epochs=20)
QUICK = Substitute(surrogate="mlp", steps=30)
ONCE = PlainLearner(surrogate="mlp", epochs=1)


def heavy(images, column=3.6):
    """Images that are heavier on the left: their centre of mass is before that column."""
    columns = images.sum(axis=(1, 2))
    return columns @ np.arange(8) < column * columns.sum(axis=1)


@pytest.fixture
def pool():
    return np.random.default_rng(5).integers(0, 256, (150, 1, 8, 8), np.uint8)


class Rejecting:
    """Class ``reject`` for images that are heavier on the left, the right label for others."""

    def __init__(self, model, reject: int, classes: int) -> None:
        self.right = TorchPredictor(model)
        self.reject, self.classes = reject, classes

    def predict(self, images):
        logits = np.full((len(images), self.classes), -20, np.float32)
        logits[:, :10] = self.right.predict(images)
        logits[heavy(images)] = 20 * np.eye(self.classes, dtype=np.float32)[self.reject]
        return logits


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
        labels = np.where(heavy(images, 3.5), (labels + 1 + digest % 3) % 10, labels)
        return 20 * np.eye(10, dtype=np.float32)[labels]


@pytest.mark.parametrize(("reject", "classes", "known"), [(3, 10, None), (10, 11, 10)])
@pytest.mark.parametrize("oracle", ["soft", "top1"])
def test_later_rounds_meet_fewer_rejections(reject, classes, known, oracle, digits) -> None:
    victim = Victim(Rejecting(digits.model, reject, classes), oracle, budget=300)
    attack = RejectionAvoider(LEARNER, reject_class=known, substitute=QUICK)
    result = attack.run(victim, digits.pool)
    assert result.queries_used == victim.queries_used == len(np.unique(result.indices)) == 300
    json.dumps([result.settings, result.rounds])
    left_heavy = heavy(digits.pool / np.float32(255))
    first, rest = left_heavy[result.indices[:60]], left_heavy[result.indices[60:]]
    assert first.mean() > 0.4
    assert rest.mean() < first.mean() - 0.2
    assert abs(result.rounds[0]["rejected"] - first.mean()) < 0.1


def test_without_rejections_it_asks_at_random(spy, pool) -> None:
    attack = RejectionAvoider(ONCE, reject_class=7)
    result = attack.run(Victim(spy, budget=97), pool)
    assert result.queries_used == len(np.unique(result.indices)) == 97
    assert {row["rejected"] for row in result.rounds} == {0.0}
    again = attack.run(Victim(spy, budget=97), pool)
    assert np.array_equal(again.indices, result.indices)


def test_empty_responses_are_rejections() -> None:
    responses = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    assert RejectionAvoider().rejected(responses).tolist() == [True, False, False]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("budget", [2, 97, 400, 10_000])
def test_every_version_is_counted_and_in_the_unit_range(flip, budget, spy, pool) -> None:
    victim = Victim(spy, "top1", budget=budget)
    result = StableQueries(ONCE, flip=flip).run(victim, pool[:60])
    asked = np.concatenate(spy.asked)
    assert result.queries_used == victim.queries_used == len(asked) == len(result.indices)
    assert result.queries_used == budget or set(result.indices) == set(range(60))
    assert 0 <= asked.min() <= asked.max() <= 1
    assert result.rounds[-1]["queries"] == result.queries_used
    versions = np.bincount(result.indices)
    assert versions.max() <= 3 + flip
    json.dumps([result.settings, result.rounds])


def test_a_constant_victim_is_stable_and_an_empty_response_is_not(make_spy, pool) -> None:

    class Constant(make_spy):
        def predict(self, images):
            return np.tile(np.array([[5, 0, 0]], np.float32), (len(images), 1))

    constant = StableQueries(ONCE).run(Victim(Constant(), "top1", budget=500), pool[:60])
    assert constant.rounds[-1] == {"queries": 180, "images": 60, "stable": 60}

    class Half(make_spy):
        """One image in two says nothing behind a coarse oracle."""

        def predict(self, images):
            sure = images[:, 0].sum(axis=(1, 2)) > 32
            return np.where(sure[:, None], np.array([[20, 0, 0]]), 0).astype(np.float32)

    half = Victim(Half(), "rounded", decimals=0, budget=500)
    assert 0 < StableQueries(ONCE).run(half, pool[:60]).rounds[-1]["stable"] < 60


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


@pytest.mark.parametrize(
    ("attack", "defended"),
    [("avoiding", False), ("avoiding", True), ("stable", False), ("stable-mirrored", False)],
)
def test_they_beat_a_clone_without_queries(attack: str, defended: bool, digits) -> None:
    if attack == "avoiding":
        chosen = RejectionAvoider(make_learner("filtered", "mlp", 20), substitute=QUICK)
    else:
        chosen = make_attack(f"knockoff-{attack}", LEARNER)
        assert chosen.name == f"knockoff-{attack}"
    victim = Victim(Rejecting(digits.model, 3, 10) if defended else digits.model, budget=300)
    result = chosen.run(victim, digits.pool)
    floor = zero_query_accuracy(digits.pool, digits.test, digits.test_labels, 10, LEARNER, seeds=2)
    assert accuracy(result.clone, digits.test, digits.test_labels) > floor + 0.2


@pytest.mark.parametrize(
    ("attack", "setting", "value", "message"),
    [
        (RejectionAvoider, "explore", 2.0, "explore=2"),
        (RejectionAvoider, "reject_class", -1, "reject_class=-1"),
        (StableQueries, "brightness", 1.0, "brightness=1"),
        (StableQueries, "shift", -1, "shift=-1"),
    ],
)
def test_refusals(attack, setting: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack(**{setting: value})
