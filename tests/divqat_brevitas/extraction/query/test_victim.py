"""What a victim answers, counts and refuses, and what its oracles show."""

import hashlib
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import ORACLES, BudgetExceededError, Victim, make_oracle, softmax
from divqat_brevitas.extraction.defences import GaussianNoise, ReverseSigmoid, Top1


def test_answers_through_the_oracle(spy, images) -> None:
    logits = spy.predict(images)
    assert np.array_equal(Victim(spy, oracle="soft").query(images), softmax(logits))
    top2 = Victim(spy, oracle="topk", k=2).query(images)
    assert np.array_equal((top2 > 0).sum(axis=1), np.full(10, 2))


def test_one_image_is_one_query_asked_before_or_not(spy, images) -> None:
    victim = Victim(spy, budget=30)
    victim.query(images)
    victim.query(images)
    victim.query(np.repeat(images[:1], 3, axis=0))
    assert (victim.queries_used, victim.remaining) == (23, 7)
    assert sum(len(batch) for batch in spy.asked) == 23


def test_budget_is_met_exactly_and_a_batch_too_large_is_refused_whole(spy, images) -> None:
    victim = Victim(spy, budget=15)
    victim.query(images)
    with pytest.raises(BudgetExceededError, match="10 more queries do not fit: 10 of 15"):
        victim.query(images)
    assert len(spy.asked) == 1  # the model was not asked
    assert victim.remaining == 5
    victim.query(images[:5])
    assert victim.remaining == 0
    with pytest.raises(BudgetExceededError):
        victim.query(images[:1])
    assert BudgetExceededError.exit_code == 2


def test_ledger(spy, images) -> None:
    victim = Victim(spy, budget=20)
    victim.query(images[:4])
    victim.query(images[::-1][:6])  # not contiguous: hashed in C order all the same
    first, second = victim.ledger
    assert (first.batch, first.images, first.cumulative) == (0, 4, 4)
    assert (second.batch, second.images, second.cumulative) == (1, 6, 10)
    assert first.sha256 == hashlib.sha256(images[:4].tobytes()).hexdigest()
    assert second.sha256 == hashlib.sha256(images[::-1][:6].copy().tobytes()).hexdigest()


@given(st.lists(st.integers(1, 12), max_size=12), st.integers(0, 40))
def test_accounting_holds_for_any_batches(sizes: list[int], budget: int) -> None:
    victim = Victim(Ones(), budget=budget)
    used = 0
    for size in sizes:
        batch = np.zeros((size, 1, 8, 8), np.float32)
        if used + size > budget:
            with pytest.raises(BudgetExceededError):
                victim.query(batch)
        else:
            victim.query(batch)
            used += size
        assert victim.queries_used == used
        assert victim.queries_used + victim.remaining == budget
    assert sum(row.images for row in victim.ledger) == used


class Ones:
    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.ones((len(images), 2), np.float32)


def test_threads_never_overdraw(images) -> None:
    class Slow(Ones):
        def predict(self, images: np.ndarray) -> np.ndarray:
            time.sleep(0.001)  # lets another thread in between the check and the count
            return super().predict(images)

    victim = Victim(Slow(), budget=103)
    refused = []

    def ask() -> None:
        for _ in range(10):
            try:
                victim.query(images[:3])
            except BudgetExceededError:
                refused.append(3)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert victim.queries_used == 102  # the largest multiple of 3 within 103
    assert sum(refused) + victim.queries_used == 8 * 10 * 3
    assert [row.batch for row in victim.ledger] == list(range(34))
    assert [row.cumulative for row in victim.ledger] == list(range(3, 103, 3))


def test_a_failing_model_costs_nothing(make_spy, images) -> None:
    for logits, message in (
        (np.full((10, 3), np.nan, np.float32), "NaN"),
        (np.zeros((9, 3), np.float32), r"shape \(9, 3\)"),
        (np.zeros((10,), np.float32), r"shape \(10,\)"),
        (np.zeros((10, 3), np.int64), "int64"),
    ):
        victim = Victim(make_spy(logits=logits))
        with pytest.raises(InputError, match=message):
            victim.query(images)
        assert victim.queries_used == 0
        assert victim.ledger == ()


def test_bad_images_are_refused_before_the_model(spy, images) -> None:
    holed = images.copy()
    holed[3, 0, 2, 2] = np.nan
    bad = [
        (images.astype(np.float64), "float64"),
        ((images * 255).astype(np.uint8), "uint8"),
        (images.tolist(), "list"),
        (images[0], r"shape \(1, 8, 8\)"),
        (images[:0], "at least one image"),
        (images + 1, r"must lie in \[0, 1\]"),
        (images - 1, r"must lie in \[0, 1\]"),
        (holed, "finite"),
    ]
    victim = Victim(spy)
    for batch, message in bad:
        with pytest.raises(InputError, match=message):
            victim.query(batch)
    assert spy.asked == []
    assert victim.queries_used == 0


def test_another_image_shape_is_refused(spy, images) -> None:
    victim = Victim(spy)
    victim.query(images)
    with pytest.raises(InputError, match=r"\(1, 8, 8\)"):
        victim.query(np.zeros((1, 3, 8, 8), np.float32))


def test_top1_victim_never_leaks_logits(make_spy, images) -> None:
    logits = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    model = make_spy(logits=logits)
    victim = Victim(model, oracle="top1")
    responses = victim.query(images)
    one_hot = np.eye(3, dtype=np.float32)[logits.argmax(axis=1)]
    assert np.array_equal(responses, one_hot)
    assert responses.base is None  # no larger array behind the response
    # The victim keeps no array: its state is numbers, strings, the ledger and the model.
    assert not any(isinstance(value, np.ndarray) for value in vars(victim).values())
    assert all(isinstance(value, int | str) for value in vars(victim.ledger[0]).values())
    assert "[" not in repr(victim)


def test_constructor_refuses(spy) -> None:
    with pytest.raises(InputError, match="unknown oracle"):
        Victim(spy, oracle="labels")
    with pytest.raises(InputError, match="unknown defence"):
        Victim(spy, defence="maad")
    for budget in (-1, 1.5, True):
        with pytest.raises(InputError, match="budget"):
            Victim(spy, budget=budget)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be attacked"):
        Victim(object())  # type: ignore[arg-type]


def test_without_a_defence_every_oracle_sees_the_networks_own_logits(spy, images) -> None:
    logits = spy.predict(images)
    for oracle in ORACLES:
        for victim in (Victim(spy, oracle), Victim(spy, oracle, defence="none", cache=True)):
            responses = victim.query(images)
            assert np.array_equal(responses, make_oracle(oracle)(logits))
            assert responses.dtype == np.float32


def test_a_defence_stands_between_softmax_and_oracle(spy, images) -> None:
    defended = ReverseSigmoid(2.0).perturb(images, softmax(spy.predict(images)))
    assert not np.array_equal(defended, softmax(spy.predict(images)))
    for defence in ("reverse-sigmoid:2", ReverseSigmoid(2.0)):
        victim = Victim(spy, defence=defence)
        # A row's sum may be off by one unit in the last place, and the oracle divides by it.
        np.testing.assert_allclose(victim.query(images), defended, rtol=2.5e-7, atol=0)
        assert victim.defence == "reverse-sigmoid:2"
        assert victim.defence_settings == {"beta": 2.0, "gamma": 0.2}
        assert victim.queries_used == 10
    logits = Victim(spy, oracle="logits", defence="reverse-sigmoid:2").query(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(softmax(logits), defended, rtol=1e-6, atol=0)
    top1 = Victim(spy, oracle="top1", defence="reverse-sigmoid:2").query(images)
    assert np.array_equal(top1.argmax(axis=1), defended.argmax(axis=1))
    rounded = Victim(spy, oracle="rounded", defence="reverse-sigmoid:2", decimals=1).query(images)
    assert np.array_equal(rounded, defended.astype(np.float64).round(1).astype(np.float32))


def test_a_zero_behind_a_defence_stays_zero(spy, images) -> None:
    assert set(np.unique(Victim(spy, defence="top1").query(images))) == {0.0, 1.0}
    logits = Victim(spy, oracle="logits", defence="top1").query(images)
    assert np.isfinite(logits).all()


def test_a_broken_defence_costs_nothing(spy, images) -> None:
    class Broken(Top1):
        name = "broken"

        def perturb(self, images: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
            return probabilities * 2

    for cache in (False, True):
        victim = Victim(spy, defence=Broken(), cache=cache)
        with pytest.raises(InputError, match="'broken' must be rows of sum 1"):
            victim.query(images)
        assert victim.queries_used == 0
        assert victim.ledger == ()


def test_a_defence_cannot_change_the_images_in_the_ledger(spy, images) -> None:
    class Vandal(Top1):
        def perturb(self, images: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
            images[:] = 0
            return super().perturb(images, probabilities)

    before = images.copy()
    victim = Victim(spy, defence=Vandal())
    victim.query(images)
    assert np.array_equal(images, before)
    assert victim.ledger[0].sha256 == hashlib.sha256(before.tobytes()).hexdigest()


def test_random_answers_differ_when_asked_again_and_the_cache_holds_them(spy, images) -> None:
    forgetful = Victim(spy, defence=GaussianNoise(0.3, seed=1))
    first = forgetful.query(images)
    assert not np.array_equal(first, forgetful.query(images))
    # A repeat inside one batch is asked twice too.
    twice = forgetful.query(np.repeat(images[:1], 2, axis=0))
    assert not np.array_equal(twice[0], twice[1])

    constant = Victim(spy, defence=GaussianNoise(0.3, seed=1), cache=True)
    held = constant.query(images)
    assert np.array_equal(held, first)  # the same stream, met for the first time
    assert np.array_equal(constant.query(images[::-1]), held[::-1])
    mixed = constant.query(np.concatenate([images[3:4], 1 - images[:1], images[3:4]]))
    assert np.array_equal(mixed[0], held[3])
    assert np.array_equal(mixed[2], held[3])
    assert "cache=True" in repr(constant)


def test_a_cache_cannot_hide_a_query(spy, images) -> None:
    victim = Victim(spy, budget=25, cache=True)
    victim.query(images)
    victim.query(images)
    assert (victim.queries_used, victim.remaining) == (20, 5)
    assert [row.images for row in victim.ledger] == [10, 10]
    assert victim.ledger[0].sha256 == victim.ledger[1].sha256
    with pytest.raises(BudgetExceededError):
        victim.query(images)
    assert sum(len(batch) for batch in spy.asked) == 10  # the network worked once an image


def test_an_attacker_cannot_write_into_the_cache(spy, images) -> None:
    victim = Victim(spy, cache=True)
    responses = victim.query(images)
    before = responses.copy()
    responses[:] = 0
    assert np.array_equal(victim.query(images), before)


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
