import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divqat_brevitas.extraction.attacks.adaptive import (
    GradientBandit,
    group_images,
    reward_certainty,
    reward_diversity,
    reward_loss,
)

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
