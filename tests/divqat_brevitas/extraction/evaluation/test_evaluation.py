"""The one rule: worst case, naive, difference and queries to 90 %, on rows made for it."""

from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import AttackRow, summarize
from divqat_brevitas.extraction.evaluation.statistics import (
    basis,
    difference,
    hierarchical_bootstrap,
    mean_over_seeds,
    t_interval,
    victims_interval,
    wilson,
)
from divqat_brevitas.extraction.evaluation.summary import (
    Group,
    accuracy_difference,
    attackers,
    compare,
    largest_common_budget,
    naive,
    worst_case,
)


def victim(variant: str = "qat", seed: int = 0, accuracy: float = 0.9, **more: Any) -> dict:
    return {"variant": variant, "seed": seed, "accuracy": accuracy, **more}


def objects(rows: list[Any]) -> list[Any]:
    return [SimpleNamespace(**{"accuracy_engine": None} | one) for one in rows]


def seeds(*accuracies: float, **changes: Any) -> list[Any]:
    return [row(victim_seed=s, clone_accuracy=a, **changes) for s, a in enumerate(accuracies)]


def test_mean_over_seeds_first_then_the_best_attacker() -> None:
    # vgg: .5, .75, .25 -> mean .5. mlp: .6, .6, .6 -> mean .6, the worst case although .75 is
    # the best single clone.
    rows = seeds(0.5, 0.75, 0.25) + seeds(0.6, 0.6, 0.6, surrogate="mlp")
    (summary,) = summarize(rows, [victim(seed=s, accuracy=0.75 + s / 8) for s in range(3)])
    assert summary["worst_case_clone_accuracy"] == pytest.approx(0.6, abs=1e-15)
    assert summary["worst_case_attack"] == "knockoff-random / soft / letters / mlp"
    assert summary["victim_accuracy"] == 0.875
    assert (summary["seeds"], summary["victim_seeds"]) == (3, 3)


def test_a_victim_seed_counts_once_however_often_it_was_attacked() -> None:
    rows = [row(seed=s, clone_accuracy=a) for s, a in enumerate((0.0, 0.25, 0.5))]
    rows.append(row(victim_seed=1, clone_accuracy=0.75))
    (summary,) = summarize(rows, [victim(seed=0), victim(seed=1)])
    assert summary["worst_case_clone_accuracy"] == 0.5  # (.25 + .75) / 2, not 1.5 / 4
    assert (summary["seeds"], summary["victim_seeds"]) == (4, 2)


def test_an_attack_on_one_lucky_victim_is_not_the_worst_case() -> None:
    rows = seeds(0.5, 0.5, 0.5) + seeds(0.875, attack="jbda")
    victims = [victim(seed=s) for s in range(3)]
    (summary,) = summarize(rows, victims)
    assert summary["worst_case_clone_accuracy"] == 0.5
    # Where no attack was made on every victim, those made on most count.
    (fewer,) = summarize(seeds(0.5, 0.5) + seeds(0.0, 0.0, 0.75, attack="jbda")[2:], victims)
    assert fewer["worst_case_clone_accuracy"] == 0.5


def test_kinds_of_pools_never_mix() -> None:
    rows = [
        row(clone_accuracy=0.875, pool="rest", pool_kind="in"),
        row(clone_accuracy=0.25),
        row(clone_accuracy=0.5, pool="patches"),
        row(clone_accuracy=0.125, pool="none", pool_kind="free", attack="dfme"),
    ]
    worst = {s["pool_kind"]: s["worst_case_clone_accuracy"] for s in summarize(rows, [victim()])}
    assert worst == {"in": 0.875, "out": 0.5, "free": 0.125}


def test_groups_do_not_mix() -> None:
    rows = [
        row(clone_accuracy=0.125),
        row(clone_accuracy=0.25, oracle="top1"),
        row(clone_accuracy=0.375, budget=2000),
        row(clone_accuracy=0.5, victim="divqat"),
        row(clone_accuracy=0.625, defence="top1"),
    ]
    summaries = summarize(rows, [victim(), victim("divqat", accuracy=0.8)])
    assert [s["worst_case_clone_accuracy"] for s in summaries] == [0.125, 0.25, 0.375, 0.5, 0.625]
    assert summaries[3]["victim_accuracy"] == 0.8
    assert summaries[4]["defence"] == "top1"


def test_naive_is_random_on_responses_as_they_come_and_never_above_the_worst_case() -> None:
    rows = [
        row(clone_accuracy=0.5),
        row(clone_accuracy=0.625, surrogate="mlp"),
        row(clone_accuracy=0.75, treatment="argmax"),
        row(clone_accuracy=0.875, attack="knockoff-adaptive"),
    ]
    (summary,) = summarize(rows, [victim()])
    assert summary["naive_clone_accuracy"] == 0.625
    assert summary["worst_case_clone_accuracy"] == 0.875
    (without,) = summarize(rows[2:], [victim()])
    assert without["naive_clone_accuracy"] is None
    # On one victim of three it may be lucky: it is no figure of the group then.
    some = attackers(seeds(0.75) + seeds(0.5, 0.5, 0.5, attack="jbda"))
    worst = worst_case(some)
    assert worst is not None
    assert (naive(some), worst.mean) == (None, 0.5)


def test_queries_to_90_percent_is_the_smallest_budget_whose_worst_case_reaches_it() -> None:
    def curve(*accuracies: float, **changes: Any) -> list[Any]:
        return [
            row(budget=100 * 2**at, queries_used=0, clone_accuracy=a, **changes)
            for at, a in enumerate(accuracies)
        ]

    # 90 % of .9 is .81, which 0.9 * 0.9 misses by one bit; the naive attacker never gets there.
    rows = curve(0.5, 0.81, 0.85, treatment="argmax") + curve(0.5, 0.6, 0.7)
    found = summarize(rows, [victim(accuracy=0.9)])
    assert [s["queries_to_90_percent"] for s in found] == [200, 200, 200]
    # Another kind of pool does not help.
    rows += curve(0.89, 0.89, 0.89, pool="rest", pool_kind="in")
    found = summarize(rows, [victim(accuracy=0.9)])
    assert {(s["pool_kind"], s["queries_to_90_percent"]) for s in found} == {
        ("out", 200),
        ("in", 100),
    }
    (never,) = summarize(curve(0.80), [victim(accuracy=0.9)])
    assert never["queries_to_90_percent"] is None


def test_victim_accuracy_is_the_engines_where_known_and_of_attacked_seeds_only() -> None:
    victims = [
        victim(seed=0, accuracy=0.9, accuracy_engine=0.75),
        victim(seed=1, accuracy=0.25, accuracy_engine=None),
        victim(seed=2, accuracy=0.0),
    ]
    (summary,) = summarize(seeds(0.5, 0.5), victims)
    assert summary["victim_accuracy"] == 0.5


def test_inconsistent_rows_are_refused() -> None:
    with pytest.raises(InputError, match="two result rows"):
        summarize([row(), row(clone_accuracy=0.9)], [victim()])
    with pytest.raises(InputError, match="'qat' of seed 0 was attacked but has no row"):
        summarize([row()], [victim(seed=1)])
    with pytest.raises(InputError, match="'qat' of seed 0 has two rows"):
        summarize([row()], [victim(), victim()])


def test_the_difference_is_that_of_two_worst_cases() -> None:
    rows = (
        seeds(0.75, 0.75, 0.75)
        + seeds(0.5, 0.5, 0.5, treatment="argmax")
        + seeds(0.25, 0.25, 0.25, victim="divqat")
        + seeds(0.5, 0.5, 0.5, victim="divqat", treatment="argmax")
        + seeds(1.0, victim="divqat", attack="jbda")
        + seeds(0.875, 0.875, 0.875, attack="activethief")
    )
    victims = objects(
        [victim(name, s, a) for name, a in (("qat", 0.9), ("divqat", 0.875)) for s in range(3)]
    )
    ours, theirs = Group("divqat", "out", 1000), Group("qat", "out", 1000)
    found = compare(rows, victims, ours, theirs, images=100)
    assert found is not None
    assert found.difference is not None
    assert found.difference.mean == -0.25
    assert found.difference.about_method
    # Left out: what only plain QAT met. Named: what did better on fewer victims.
    assert (found.ours.mean, found.theirs.mean) == (0.5, 0.75)
    assert ["activethief" in name for name in found.missing] == [True]
    assert ["jbda" in name for name in found.better_on_fewer] == [True]
    assert found.cost is not None
    assert found.cost.mean == pytest.approx(0.025)
    assert compare(rows, victims, ours, Group("float", "out", 1000)) is None


def test_accuracies_are_paired_by_victim_seed() -> None:
    victims = objects(
        [victim("a", 0, 0.5), victim("a", 1, 0.75), victim("b", 1, 0.5), victim("b", 2, 0.0)]
    )
    found = accuracy_difference(victims, "a", "b")
    assert found is not None
    assert (found.mean, found.victim_seeds) == (0.25, 1)
    assert accuracy_difference(victims, "a", "c") is None


def test_the_largest_common_budget_is_of_one_kind_of_pool() -> None:
    rows = (
        [row(budget=b, queries_used=0) for b in (100, 200)]
        + [row(victim="divqat", budget=b, queries_used=0) for b in (100, 200, 400)]
        + [row(victim="qat", pool_kind="in", budget=400, queries_used=0)]
    )
    pair = (Group("divqat", "out", 0), Group("qat", "out", 0))
    assert largest_common_budget(rows, *pair) == 200
    assert largest_common_budget(rows, Group("divqat", "in", 0), Group("qat", "in", 0)) is None


def row(**changes: Any) -> AttackRow:
    base: dict[str, Any] = {
        "victim": "qat",
        "victim_seed": 0,
        "engine": "integer",
        "oracle": "soft",
        "attack": "knockoff-random",
        "treatment": "soft",
        "pool": "letters",
        "pool_kind": "out",
        "budget": 1000,
        "queries_used": 1000,
        "surrogate": "vgg-small",
        "seed": 0,
        "clone_accuracy": 0.5,
        "agreement": 0.5,
    }
    return AttackRow(**(base | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": "label"}, "unknown oracle"),
        ({"defence": "maad"}, "unknown defence"),
        ({"pool_kind": "ood"}, "unknown pool kind"),
        ({"queries_used": 1001}, "budget of 1000"),
        ({"clone_accuracy": 91.0}, "fraction"),
        ({"agreement": float("nan")}, "fraction"),
    ],
)
def test_row_refuses(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        row(**changes)


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
