"""Knockoff Nets, their settings, and the bandit of the adaptive one."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    AdaptiveSampling,
    BudgetExceededError,
    KnockoffNets,
    PlainLearner,
    Victim,
    accuracy,
    agreement,
    build_surrogate,
    softmax,
)
from divqat_brevitas.extraction.attacks.adaptive import (
    GradientBandit,
    group_images,
    reward_certainty,
    reward_diversity,
    reward_loss,
)
from divqat_brevitas.extraction.learners.catalogue import make_learner

FAST = {"surrogate": "mlp", "epochs": 3}


def assert_same_clone(a, b) -> None:
    first, second = a.clone.state_dict(), b.clone.state_dict()
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[k].numpy(), second[k].numpy()) for k in first)


@pytest.fixture
def pool() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (150, 1, 8, 8), np.uint8)


def test_budget_of_the_attack_within_the_victims(spy, pool) -> None:
    victim = Victim(spy, budget=100)
    attack = KnockoffNets(**FAST)
    assert attack.run(victim, pool, budget=60).queries_used == 60
    with pytest.raises(BudgetExceededError, match="60 queries, but the victim has 40 of 100"):
        attack.run(victim, pool, budget=60)
    assert victim.queries_used == 60
    assert attack.run(victim, pool).queries_used == 40
    with pytest.raises(BudgetExceededError):
        attack.run(victim, pool)


def test_smaller_budget_asks_the_first_of_the_larger(spy, pool) -> None:
    attack = KnockoffNets(seed=3, **FAST)
    small = attack.run(Victim(spy), pool, budget=30).indices
    large = attack.run(Victim(spy), pool, budget=90).indices
    assert np.array_equal(small, large[:30])
    assert not np.array_equal(small, np.sort(small))


@pytest.mark.slow  # trains clones
@pytest.mark.parametrize("strategy", ["random", "adaptive"])
@pytest.mark.parametrize("targets", ["soft", "argmax"])
def test_copies_an_undefended_victim(strategy: str, targets: str, digits) -> None:
    attack = KnockoffNets(strategy=strategy, targets=targets, surrogate="vgg-small", epochs=12)
    result = attack.run(Victim(digits.model, budget=600), digits.pool)
    untrained = build_surrogate("vgg-small", (1, 8, 8), 10, 0)
    assert agreement(untrained, digits.model, digits.test) < 0.4
    assert agreement(result.clone, digits.model, digits.test) > 0.9
    assert accuracy(result.clone, digits.test, digits.test_labels) > 0.85


def test_uint8_float32_and_pool_objects_are_the_same(spy, pool) -> None:
    @dataclass(frozen=True)
    class Pool:
        name: str
        images: np.ndarray

    attack = KnockoffNets(surrogate="mlp", epochs=1)
    runs = [
        attack.run(Victim(spy, budget=80), images)
        for images in (pool, pool / np.float32(255), Pool("p", pool))
    ]
    assert_same_clone(runs[0], runs[1])
    assert_same_clone(runs[0], runs[2])


def test_adaptive_bookkeeping(digits) -> None:
    victim = Victim(digits.model, budget=100)
    attack = KnockoffNets(strategy="adaptive", sampling=AdaptiveSampling(round_size=30), **FAST)
    result = attack.run(victim, digits.pool, labels=digits.pool_labels)
    assert [row.images for row in victim.ledger] == [30, 30, 30, 10]
    assert [round_["queries"] for round_ in result.rounds] == [30, 60, 90, 100]
    for round_ in result.rounds:
        assert len(round_["policy"]) == 10
        assert sum(round_["policy"]) == pytest.approx(1, abs=1e-12)  # ten float64 terms
        assert 0 <= round_["certainty"] <= 1
        assert 0 <= round_["diversity"] <= 1
        assert round_["loss"] >= 0
    # The rewards of the first round, from the outside: uniform average, responses of the oracle.
    responses = softmax(
        digits.model(torch.tensor(digits.pool[result.indices[:30]] / np.float32(255)))
        .detach()
        .numpy()
    )
    top = np.sort(responses, axis=1)
    # float32 logits of another batch size
    assert result.rounds[0]["certainty"] == pytest.approx(
        (top[:, -1] - top[:, -2]).mean(), abs=1e-5
    )
    rise = np.maximum(0, responses - 0.1).sum(axis=1).mean()
    assert result.rounds[0]["diversity"] == pytest.approx(rise, abs=1e-5)
    assert result.settings["actions"] == "labels"


def test_adaptive_asks_where_it_pays(spy) -> None:
    # Group 1's images get confident responses, the others flat ones.
    pool = np.random.default_rng(0).integers(0, 20, (900, 1, 8, 8), np.uint8)
    labels = np.arange(900) % 3
    pool[labels == 1, :, 0, 2] = 255
    sampling = AdaptiveSampling(rewards=("certainty",))
    attack = KnockoffNets(strategy="adaptive", sampling=sampling, surrogate="mlp", epochs=1)
    result = attack.run(Victim(spy, budget=250), pool, labels=labels)
    share = (labels[result.indices] == 1).mean()
    assert share > 0.5  # a third would be chance


def test_labels_need_not_be_dense(spy, pool) -> None:
    labels = np.where(np.arange(150) % 2 == 0, 7, 1000)
    attack = KnockoffNets(strategy="adaptive", **FAST)
    result = attack.run(Victim(spy, budget=50), pool, labels=labels)
    assert len(result.rounds[0]["policy"]) == 2


def test_unlabelled_pool_is_grouped(spy, pool) -> None:
    attack = KnockoffNets(strategy="adaptive", sampling=AdaptiveSampling(groups=6), **FAST)
    result = attack.run(Victim(spy, budget=50), pool)
    assert len(result.rounds[0]["policy"]) == 6
    assert result.settings["actions"] == "k-means"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surrogate": "vgg"}, "unknown surrogate"),
        ({"strategy": "adaptiv"}, "did you mean 'adaptive'"),
        ({"targets": "hard"}, "unknown training targets"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_constructor_refuses(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        KnockoffNets(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": ("certain",)}, "did you mean 'certainty'"),
        ({"rewards": ()}, "rewards"),
        ({"round_size": 1}, "round_size"),
        ({"groups": 0}, "groups"),
    ],
)
def test_sampling_refuses(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdaptiveSampling(**settings)


def test_bad_labels_cost_no_query(spy, pool) -> None:
    victim = Victim(spy)
    with pytest.raises(InputError, match="pool labels must be 150 integers"):
        KnockoffNets(strategy="adaptive", **FAST).run(victim, pool, labels=np.zeros(3, np.int64))
    assert victim.queries_used == 0


def test_the_defences_numbers_and_the_learners_findings_are_kept(digits) -> None:
    victim = Victim(digits.model, budget=120, defence="reverse-sigmoid:0.5")
    learner = make_learner("filtered", surrogate="mlp", epochs=2)
    result = KnockoffNets(learner=learner, seed=1).run(victim, digits.pool)
    assert result.settings["defence"] == victim.defence
    assert result.settings["defence_settings"] == victim.defence_settings
    assert result.settings["defence_settings"]
    notes = result.settings["learner"]["notes"]
    assert notes["responses"] == 120
    assert 0 <= notes["ood_targets"] <= 120
    json.dumps(result.settings, allow_nan=False)


def test_nothing_found_leaves_no_notes(digits) -> None:
    learner = PlainLearner(surrogate="mlp", epochs=1)
    result = KnockoffNets(learner=learner, seed=1).run(Victim(digits.model, budget=40), digits.pool)
    assert "notes" not in result.settings["learner"]
    assert result.settings["defence_settings"] == {}
    assert np.isfinite(result.history[-1]["loss"])


P = np.array([[0.5, 0.375, 0.125], [0.25, 0.25, 0.5]], np.float32)


def test_certainty_is_the_margin() -> None:
    assert np.array_equal(reward_certainty(P), [0.125, 0.25])


def test_diversity_is_the_rise_above_the_average() -> None:
    average = np.array([0.25, 0.25, 0.5])
    assert np.array_equal(reward_diversity(P, average), [0.375, 0.0])


def test_loss_is_cross_entropy_and_stays_finite() -> None:
    clone = np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]], np.float32)
    expected = -(0.5 * np.log(0.25) + 0.375 * np.log(0.5) + 0.125 * np.log(0.25))
    rewards = reward_loss(P, clone)
    assert rewards[0] == pytest.approx(expected, rel=1e-12)  # float64, another order of terms
    assert np.isfinite(rewards[1])
    assert rewards[1] > 10


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), max_size=60))
def test_policy_is_a_distribution_whatever_the_rewards(steps: list[tuple[int, float]]) -> None:
    bandit = GradientBandit(actions=5, window=7)
    assert np.array_equal(bandit.policy(), np.full(5, 0.2))
    for action, reward in steps:
        bandit.update(action, np.array([reward, -reward]))
    policy = bandit.policy()
    assert (policy >= 0).all()
    assert policy.sum() == pytest.approx(1, abs=1e-12)  # five float64 terms
    assert bandit.draws.sum() == len(steps)
    # Every update adds the gradient of a softmax, whose entries sum to zero.
    assert bandit.preferences.sum() == pytest.approx(0, abs=1e-9)


def test_update_by_hand() -> None:
    bandit = GradientBandit(actions=2, window=10)
    assert bandit.update(0, np.array([3.0])) == 0.0  # nothing to compare with
    assert np.array_equal(bandit.preferences, [0, 0])
    # Rescaled window (0, 1), mean .5: advantage .5, first draw of action 1, policy (.5, .5).
    assert bandit.update(1, np.array([7.0])) == 0.5
    assert np.array_equal(bandit.preferences, [-0.25, 0.25])
    # Rescaled window (0, 1, .5), mean .5: advantage 0.
    assert bandit.update(1, np.array([5.0])) == 0.0
    # Rescaled (0, 1, .5, 1), mean .625: advantage .375, third draw of action 1.
    p1 = np.exp(0.25) / (np.exp(0.25) + np.exp(-0.25))
    assert bandit.update(1, np.array([7.0])) == 0.375
    assert bandit.preferences[1] == pytest.approx(0.25 + 0.375 / 3 * (1 - p1), rel=1e-12)
    assert np.array_equal(bandit.draws, [1, 3])


def test_rewards_weigh_the_same_whatever_their_scale() -> None:
    small, large = GradientBandit(2, 50), GradientBandit(2, 50)
    rng = np.random.default_rng(0)
    for step in range(40):
        a, b = rng.random(2)
        small.update(step % 2, np.array([a, b]))
        large.update(step % 2, np.array([a, 1000 * b - 7]))
    # The same numbers up to float64 rounding of the rescaling.
    np.testing.assert_allclose(small.preferences, large.preferences, rtol=0, atol=1e-9)


def test_exhausted_actions_get_exactly_nothing() -> None:
    bandit = GradientBandit(actions=3, window=5)
    policy = bandit.policy(np.array([True, False, True]))
    assert np.array_equal(policy, [0.5, 0, 0.5])


def two_kinds(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, count)
    images = rng.integers(0, 60, (count, 3, 11, 9), np.uint8)
    images[kinds == 1, 1] += 150
    return images, kinds


@pytest.mark.parametrize("as_float", [False, True])
def test_groups_find_plain_clusters(as_float: bool) -> None:
    images, kinds = two_kinds()
    pool = images.astype(np.float32) / 255 if as_float else images
    groups = group_images(pool, 2, np.random.default_rng(1))
    assert groups.dtype == np.int64
    assert np.array_equal(groups, kinds) or np.array_equal(groups, 1 - kinds)


def test_groups_are_seeded_and_dense() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3000, 1, 8, 8), np.uint8)
    a, b = (group_images(images, 12, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(a, b)
    assert np.array_equal(np.unique(a), np.arange(12))
