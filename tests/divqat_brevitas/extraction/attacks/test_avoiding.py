"""The attacker who learns what is rejected and avoids it."""

import json

import numpy as np
import pytest
from zero_query import zero_query_accuracy

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    PlainLearner,
    RejectionAvoider,
    Substitute,
    TorchPredictor,
    Victim,
    accuracy,
    make_learner,
)

LEARNER = PlainLearner(surrogate="mlp", epochs=20)
QUICK = Substitute(surrogate="mlp", steps=30)


class Rejecting:
    """Class ``reject`` for images that are heavier on the left, the right label for others."""

    def __init__(self, model, reject: int, classes: int) -> None:
        self.right = TorchPredictor(model)
        self.reject, self.classes = reject, classes

    @staticmethod
    def heavy(images):
        columns = images.sum(axis=(1, 2))
        return columns @ np.arange(8) < 3.6 * columns.sum(axis=1)

    def predict(self, images):
        logits = np.full((len(images), self.classes), -20, np.float32)
        logits[:, :10] = self.right.predict(images)
        logits[self.heavy(images)] = 20 * np.eye(self.classes, dtype=np.float32)[self.reject]
        return logits


@pytest.mark.parametrize(("reject", "classes", "known"), [(3, 10, None), (10, 11, 10)])
@pytest.mark.parametrize("oracle", ["soft", "top1"])
def test_later_rounds_meet_fewer_rejections(reject, classes, known, oracle, digits) -> None:
    victim = Victim(Rejecting(digits.model, reject, classes), oracle, budget=300)
    attack = RejectionAvoider(LEARNER, reject_class=known, substitute=QUICK)
    result = attack.run(victim, digits.pool)
    assert result.queries_used == victim.queries_used == len(np.unique(result.indices)) == 300
    json.dumps([result.settings, result.rounds])
    heavy = Rejecting.heavy(digits.pool / np.float32(255))
    first, rest = heavy[result.indices[:60]], heavy[result.indices[60:]]
    assert first.mean() > 0.4
    assert rest.mean() < first.mean() - 0.2
    assert abs(result.rounds[0]["rejected"] - first.mean()) < 0.1


def test_without_rejections_it_asks_at_random(spy) -> None:
    pool = np.random.default_rng(5).integers(0, 256, (150, 1, 8, 8), np.uint8)
    attack = RejectionAvoider(PlainLearner(surrogate="mlp", epochs=1), reject_class=7)
    result = attack.run(Victim(spy, budget=97), pool)
    assert result.queries_used == len(np.unique(result.indices)) == 97
    assert {row["rejected"] for row in result.rounds} == {0.0}
    again = attack.run(Victim(spy, budget=97), pool)
    assert np.array_equal(again.indices, result.indices)


def test_empty_responses_are_rejections() -> None:
    responses = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    assert RejectionAvoider().rejected(responses).tolist() == [True, False, False]


@pytest.mark.parametrize("defended", [False, True])
def test_it_beats_a_clone_without_queries(defended: bool, digits) -> None:
    victim = Victim(Rejecting(digits.model, 3, 10) if defended else digits.model, budget=300)
    attack = RejectionAvoider(make_learner("filtered", "mlp", 20), substitute=QUICK)
    result = attack.run(victim, digits.pool)
    floor = zero_query_accuracy(digits.pool, digits.test, digits.test_labels, 10, LEARNER, seeds=2)
    assert accuracy(result.clone, digits.test, digits.test_labels) > floor + 0.2


def test_refusals() -> None:
    with pytest.raises(InputError, match="explore=2"):
        RejectionAvoider(explore=2.0)
    with pytest.raises(InputError, match="reject_class=-1"):
        RejectionAvoider(reject_class=-1)
