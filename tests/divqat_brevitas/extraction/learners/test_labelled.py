"""The attacker with a handful of labelled images."""

import numpy as np
import pytest
from clones import clean_responses, clone_accuracy, one_hot, plain, zero_query_accuracy

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, TorchPredictor, TransferSet, accuracy
from divqat_brevitas.extraction.attack_spec import AttackSpec, check, draw_queries, run_attack
from divqat_brevitas.extraction.learners.labelled import LabelledLearner

BASE = plain(epochs=12)
DERANGED = np.array([3, 4, 5, 6, 7, 8, 9, 0, 1, 2])


def own_images(digits, each: int = 10) -> TransferSet:
    """The last images of each class of the pool, with their true labels."""
    labels = digits.pool_labels
    rows = np.concatenate([np.flatnonzero(labels == k)[-each:] for k in range(10)])
    return TransferSet(digits.pool[rows], one_hot(labels[rows]))


def test_it_undoes_permuted_classes(digits) -> None:
    responses = clean_responses(digits, 500)[:, np.argsort(DERANGED)]  # class k is shown as k + 3
    learner = LabelledLearner(labelled=own_images(digits), base=BASE)
    learned = learner.learn(TransferSet(digits.pool[:500], responses), 0)
    assert learned.notes["permutation"] == np.argsort(DERANGED).tolist()
    assert accuracy(learned.clone, digits.test, digits.test_labels) > 0.8
    assert clone_accuracy(BASE, digits, responses) < 0.1


def test_it_leaves_right_labels_and_gains_from_the_images(digits) -> None:
    responses = clean_responses(digits, 40)
    learner = LabelledLearner(labelled=own_images(digits), base=BASE)
    learned = learner.learn(TransferSet(digits.pool[:40], responses), 0)
    assert learned.notes["permutation"] is None
    ours = accuracy(learned.clone, digits.test, digits.test_labels)
    assert ours > clone_accuracy(BASE, digits, responses) + 0.05
    assert learner.settings["labelled"] == 100


def test_a_spec_gives_it_ten_images_of_each_class(digits) -> None:
    spec = AttackSpec(
        learner="labelled-argmax", surrogate="mlp", pool="letters", budget=200, epochs=12
    )
    check(spec)
    queries = draw_queries(spec, "digits")
    assert queries.labelled is not None
    assert queries.labelled.responses.sum(axis=0).tolist() == [10] * 10
    assert draw_queries(AttackSpec(pool="in", budget=50), "digits").labelled is None
    outcome = run_attack(spec, TorchPredictor(digits.model), queries)
    assert outcome.result.queries_used == 200
    assert (
        outcome.row(
            victim="float", victim_seed=0, engine="torch", clone_accuracy=0.5, agreement=0.5
        ).treatment
        == "labelled-argmax"
    )
    learner = PlainLearner(surrogate="mlp", epochs=12)
    floor = zero_query_accuracy(
        queries.images, digits.test, digits.test_labels, 10, learner, seeds=2
    )
    assert accuracy(outcome.result.clone, digits.test, digits.test_labels) > floor + 0.2


def test_refusals(digits) -> None:
    learner = LabelledLearner(labelled=own_images(digits), base=BASE)
    with pytest.raises(InputError, match="and 10 classes, but the queries"):
        learner.learn(TransferSet(digits.pool[:20], one_hot(np.arange(20) % 4, 4)), 0)
    with pytest.raises(InputError, match="share=1"):
        LabelledLearner(labelled=own_images(digits), share=1.0)
