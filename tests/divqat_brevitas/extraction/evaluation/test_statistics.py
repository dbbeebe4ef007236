from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from divqat_brevitas.extraction.evaluation.statistics import (
    basis,
    difference,
    hierarchical_bootstrap,
    mean_over_seeds,
    t_interval,
    victims_interval,
    wilson,
)


def test_t_interval_of_three_seeds() -> None:
    values = [0.7, 0.72, 0.8]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = t_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_only_common_pairs_count_and_a_victim_seed_counts_once() -> None:
    ours = {(0, 0): 0.5, (0, 1): 0.5, (0, 2): 0.5, (1, 0): 0.9, (7, 0): 0.0}
    theirs = {(0, 0): 0.6, (0, 1): 0.6, (0, 2): 0.6, (1, 0): 0.9, (8, 0): 1.0}
    found = difference(ours, theirs)
    assert found is not None
    assert (found.victim_seeds, found.pairs) == (2, 4)
    assert found.mean == pytest.approx(-0.05)  # not -0.3 / 4
    assert mean_over_seeds({(0, 0): 0.0, (0, 1): 0.0, (1, 0): 1.0}) == 0.5
    assert difference({(0, 0): 1.0}, {(0, 1): 1.0}) is None


def test_pairing_removes_what_seeds_share() -> None:
    shared = {
        (victim, attack): 0.1 * victim + 0.01 * attack for victim in range(3) for attack in (0, 1)
    }
    found = difference({pair: value - 0.02 for pair, value in shared.items()}, shared)
    assert found is not None
    assert found.t is not None
    assert found.t.low == pytest.approx(-0.02)
    assert found.t.high == pytest.approx(-0.02)


def test_one_victim_seed_has_no_interval_however_many_attacks() -> None:
    found = difference({(0, n): 0.5 for n in range(9)}, {(0, n): 0.6 + 0.01 * n for n in range(9)})
    assert found is not None
    assert found.t is None
    assert found.bootstrap is None


def test_bootstrap_repeats_and_ends_at_the_outermost_of_three_seeds() -> None:
    groups = [[0.1], [0.2], [0.6]]
    found = hierarchical_bootstrap(groups)
    assert found == hierarchical_bootstrap(groups)
    # 1/27 of all resamples hold one seed only: more than 2.5 %.
    assert (found.low, found.high) == pytest.approx((0.1, 0.6))


def test_coverage_at_three_seeds_is_what_the_module_says() -> None:
    rng = np.random.default_rng(1)
    worlds = rng.normal(size=(1000, 3))
    by_t = [0.0 in t_interval(list(world)) for world in worlds]
    by_bootstrap = [0.0 in hierarchical_bootstrap([[v] for v in w], draws=300) for w in worlds]
    assert 0.93 < fmean(by_t) < 0.97
    assert 0.68 < fmean(by_bootstrap) < 0.82


def test_wilson_is_the_score_interval() -> None:
    for share, count in ((0.0, 10), (0.3, 10), (0.44, 1000), (1.0, 360)):
        expected = stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
        found = wilson(share, count)
        # Both solve the same quadratic in doubles.
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_one_attack_seed_leaves_the_test_images_only() -> None:
    found = victims_interval({(0, 0): 0.44}, 1000)
    assert found == wilson(0.44, 1000)
    assert basis({(0, 0): 0.44}, 1000) == "over 1,000 test images only, with one attack seed"
    assert victims_interval({(0, 0): 0.44}, None) is None
    assert basis({(0, 0): 0.44}, None) == "no interval: one attack seed"


def test_attack_seeds_and_test_images_are_joined_in_squares() -> None:
    values = {(0, 0): 0.40, (0, 1): 0.44, (0, 2): 0.48}
    seeds = stats.t.ppf(0.975, 2) * 0.04 / np.sqrt(3)
    images = wilson(0.44, 1000)
    found = victims_interval(values, 1000)
    assert found is not None
    # The t quantile is a table of four decimals.
    assert 0.44 - found.low == pytest.approx(np.hypot(seeds, 0.44 - images.low), abs=1e-4)
    assert found.high - 0.44 == pytest.approx(np.hypot(seeds, images.high - 0.44), abs=1e-4)
    assert basis(values, 1000) == "over attack seeds and 1,000 test images"
    alone = victims_interval(values, None)
    assert alone is not None
    assert alone.high - 0.44 == pytest.approx(seeds, abs=1e-4)


def test_attack_seeds_are_pooled_over_victims_and_victims_do_not_widen_it() -> None:
    apart = {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.8, (1, 1): 0.9}
    found = victims_interval(apart, None)
    assert found is not None
    # Two degrees of freedom, a pooled variance of 0.005, two victims of two clones.
    half = stats.t.ppf(0.975, 2) * np.sqrt(0.005 * (1 / 2 + 1 / 2)) / 2
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)


def test_a_difference_of_one_victim_is_newcombes_hybrid_score_interval() -> None:
    found = difference({(0, 0): 56 / 70}, {(0, 0): 48 / 80}, 70)
    assert found is not None
    assert not found.about_method
    assert found.interval == found.these
    ours, theirs = wilson(56 / 70, 70), wilson(0.6, 70)
    low = 0.2 - np.hypot(0.8 - ours.low, theirs.high - 0.6)
    high = 0.2 + np.hypot(ours.high - 0.8, 0.6 - theirs.low)
    assert found.these is not None
    assert (found.these.low, found.these.high) == pytest.approx((low, high))


def test_from_three_victims_on_the_interval_is_over_victim_seeds() -> None:
    ours = {(s, 0): 0.5 + 0.01 * s for s in range(3)}
    theirs = dict.fromkeys(ours, 0.6)
    found = difference(ours, theirs, 1000)
    assert found is not None
    assert found.interval == found.t != found.these
    assert found.over == "over 3 victim seeds"
    two = difference({p: ours[p] for p in list(ours)[:2]}, theirs, 1000)
    assert two is not None
    assert two.interval == two.these != two.t


def test_the_joined_interval_covers_what_it_says() -> None:
    """One victim, five attack seeds: clones with an accuracy of their own, on shared images."""
    rng = np.random.default_rng(5)
    true, images, worlds = 0.6, 400, 600
    hits = 0
    for _ in range(worlds):
        accuracies = np.clip(rng.normal(true, 0.02, 5), 0, 1)
        # Clones agree on most images: one threshold an image decides all of them.
        thresholds = rng.random(images)
        values = {
            (0, seed): float((thresholds < accuracy).mean())
            for seed, accuracy in enumerate(accuracies)
        }
        found = victims_interval(values, images)
        assert found is not None
        hits += true in found
    # 95 % of 600 has a standard error of 0.9 points; the sum of squares errs on the wide side.
    assert hits / worlds > 0.92
