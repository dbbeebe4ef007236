import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import ORACLES, make_oracle, softmax

LOGITS = np.log(np.array([[0.125, 0.5, 0.375], [0.7, 0.2, 0.1]])).astype(np.float32)
# The logits were rounded to float32 before the softmax: 2^-24 relative, with a margin.
TOLERANCE = {"rtol": 1e-6, "atol": 0}

matrices = arrays(
    np.float32, (4, 5), elements=st.floats(-200, 200, width=32, allow_subnormal=False)
)


def test_softmax_is_stable_at_large_logits() -> None:
    assert np.array_equal(softmax(np.array([[3e38, 3e38, -3e38]], np.float32)), [[0.5, 0.5, 0]])


def test_logits_are_a_copy() -> None:
    responses = make_oracle("logits")(LOGITS)
    assert np.array_equal(responses, LOGITS)
    assert not np.shares_memory(responses, LOGITS)


def test_topk_keeps_k_and_does_not_renormalise() -> None:
    responses = make_oracle("topk", k=2)(LOGITS)
    np.testing.assert_allclose(responses, [[0, 0.5, 0.375], [0.7, 0.2, 0]], **TOLERANCE)


def test_topk_ties_go_to_the_lowest_index() -> None:
    # Many classes: a sort that is not stable may still keep the order of a few.
    logits = np.tile(np.array([0, 2, 1, 2], np.float32), (1, 50))
    responses = make_oracle("topk", k=5)(logits)
    assert np.array_equal(np.flatnonzero(responses), [1, 3, 5, 7, 9])
    assert np.array_equal(responses[responses > 0], softmax(logits)[0, [1, 3, 5, 7, 9]])


def test_topk_beyond_the_classes_is_soft() -> None:
    assert np.array_equal(make_oracle("topk", k=9)(LOGITS), softmax(LOGITS))


def test_rounded_half_to_even_and_not_renormalised() -> None:
    # 0.125 and 0.375 sit exactly on ties of two decimals.
    logits = np.log(np.array([[0.125, 0.5, 0.375]])).astype(np.float32)
    exact = softmax(logits)
    responses = make_oracle("rounded", decimals=1)(logits)
    np.testing.assert_allclose(responses, [[0.1, 0.5, 0.4]], **TOLERANCE)
    assert np.array_equal(make_oracle("rounded", decimals=9)(logits), exact)
    ties = make_oracle("rounded", decimals=0)(np.zeros((1, 2), np.float32))
    assert np.array_equal(ties, [[0, 0]])  # 0.5 rounds to 0: such a response says nothing


@given(matrices)
def test_top1_is_one_hot_of_argmax(logits: np.ndarray) -> None:
    responses = make_oracle("top1")(logits)
    assert responses.dtype == np.float32
    assert set(np.unique(responses)) == {0.0, 1.0}
    assert np.array_equal(responses.sum(axis=1), np.ones(4))
    assert np.array_equal(responses.argmax(axis=1), logits.argmax(axis=1))


@given(matrices)
def test_answers_are_float32_of_either_precision(logits: np.ndarray) -> None:
    for name in ORACLES:
        oracle = make_oracle(name)
        wide = oracle(logits.astype(np.float64))
        assert wide.dtype == np.float32
        assert np.array_equal(wide, oracle(logits))


@given(matrices)
def test_every_oracle_is_pure(logits: np.ndarray) -> None:
    before = logits.copy()
    for name in ORACLES:
        oracle = make_oracle(name)
        assert np.array_equal(oracle(logits), oracle(logits))
    assert np.array_equal(logits, before)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sofd", {}, "did you mean 'soft'"),
        ("soft", {"k": 3}, "no option 'k'; it takes no options"),
        ("topk", {"decimals": 3}, "no option 'decimals'; it takes k"),
        ("topk", {"k": 0}, "from 1"),
        ("topk", {"k": 1.5}, "whole number"),
        ("topk", {"k": True}, "whole number"),
        ("rounded", {"decimals": -1}, "from 0"),
    ],
)
def test_bad_oracles_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_oracle(name, **options)
