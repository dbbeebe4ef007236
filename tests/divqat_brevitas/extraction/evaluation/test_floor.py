import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, ZeroQueryFloor, zero_query_floor

QUICK = PlainLearner(surrogate="mlp", epochs=2)


def test_a_thief_who_asks_nothing_has_little(digits) -> None:
    floor = zero_query_floor(digits.pool, digits.test, digits.test_labels, 10, learner=QUICK)
    assert floor.chance == 0.1
    assert floor.majority == np.bincount(digits.test_labels).max() / len(digits.test)
    # 397 test images: a clone of random labels is some thirds of a class off at most.
    assert 0 <= floor.random_labels < 0.4
    assert floor.own_labels is None
    assert floor.best == max(floor.chance, floor.majority, floor.random_labels)


def test_own_labels_raise_the_floor(digits) -> None:
    floor = zero_query_floor(
        digits.pool[:200],
        digits.test,
        digits.test_labels,
        10,
        labels=digits.pool_labels[:200],
        learner=PlainLearner(surrogate="mlp", epochs=20),
        seeds=1,
    )
    assert floor.own_labels is not None
    assert floor.best == floor.own_labels > 0.7


def test_the_best_seed_counts_and_more_never_lower_it(digits) -> None:
    few, more = (
        zero_query_floor(
            digits.pool[:50], digits.test, digits.test_labels, 10, learner=QUICK, seeds=seeds
        )
        for seeds in (1, 3)
    )
    assert more.random_labels >= few.random_labels


def test_best_is_the_largest() -> None:
    assert ZeroQueryFloor(0.1, 0.2, 0.15).best == 0.2
    assert ZeroQueryFloor(0.1, 0.2, 0.15, 0.9).best == 0.9


def test_refuses(digits) -> None:
    images, test, labels = digits.pool[:20], digits.test, digits.test_labels
    with pytest.raises(InputError, match="at least 2 classes"):
        zero_query_floor(images, test, labels, 3)
    with pytest.raises(InputError, match="at least 1 seed"):
        zero_query_floor(images, test, labels, 10, seeds=0)
    with pytest.raises(InputError, match=r"0\.\.9"):
        zero_query_floor(images, test, labels, 10, labels=np.full(20, 10))
    with pytest.raises(InputError, match="test labels"):
        zero_query_floor(images, test, labels[:5], 10)
