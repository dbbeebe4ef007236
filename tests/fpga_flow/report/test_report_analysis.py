from typing import Any

import pytest
from synthetic_run import attack_row, victim_rows

from fpga_flow.report import validate
from fpga_flow.report.analysis import compare, worst_case
from fpga_flow.report.schema import AttackRow, Results
from fpga_flow.report.words import headline, lead

Rows = list[dict[str, Any]]


def run_of(attacks: Rows, victims: Rows | None = None) -> Results:
    engine = {"accuracy_engine": None, "engine": None}
    return validate(
        {
            "schema": 1,
            "dataset": {"name": "d", "train": 1, "test": 1, "classes": 2, "shape": [1, 8, 8]},
            "victims": [engine | row for row in victims or victim_rows(3)],
            "attacks": attacks,
            "equivalence": [],
            "summary": [],
            "hardware": [],
        }
    )


def seeds_of(victim: str, *accuracies: float, **changed: Any) -> Rows:
    return [
        attack_row(victim, accuracy, victim_seed=seed, **changed)
        for seed, accuracy in enumerate(accuracies)
    ]


def verdict(attacks: Rows) -> str:
    found = compare(run_of(attacks), "divqat", "soft", 400)
    assert found is not None
    return found.verdict


def test_one_seed_shows_no_difference_however_large() -> None:
    assert verdict(seeds_of("qat", 0.9) + seeds_of("divqat", 0.1)) == "no difference shown"


def test_two_seeds_show_no_difference() -> None:
    rows = seeds_of("qat", 0.9, 0.91) + seeds_of("divqat", 0.1, 0.11)
    assert verdict(rows) == "no difference shown"


def test_three_clones_of_one_victim_are_one_seed() -> None:
    rows = [
        attack_row(victim, accuracy, seed=seed)
        for victim, accuracy in (("qat", 0.9), ("divqat", 0.1))
        for seed in range(3)
    ]
    assert verdict(rows) == "no difference shown"


def test_overlapping_seeds_show_no_difference() -> None:
    rows = seeds_of("qat", 0.90, 0.80, 0.95) + seeds_of("divqat", 0.81, 0.70, 0.60)
    assert verdict(rows) == "no difference shown"


def test_touching_seeds_show_no_difference() -> None:
    rows = seeds_of("qat", 0.80, 0.90, 0.95) + seeds_of("divqat", 0.80, 0.70, 0.60)
    assert verdict(rows) == "no difference shown"


@pytest.mark.parametrize(("mine", "said"), [(0.7, "lower"), (0.99, "higher")])
def test_separated_seeds_show_a_difference(mine: float, said: str) -> None:
    rows = seeds_of("qat", 0.80, 0.85, 0.90) + seeds_of("divqat", mine, mine - 0.01, mine)
    assert verdict(rows) == said


def test_a_victim_attacked_in_fewer_ways_is_not_comparable() -> None:
    rows = seeds_of("qat", 0.8, 0.8, 0.8) + seeds_of("divqat", 0.1, 0.1, 0.1)
    more = seeds_of("qat", 0.9, 0.9, 0.9, treatment="argmax")
    assert verdict(rows + more) == "not comparable"


def test_against_top1_only_other_treatments_do_not_matter() -> None:
    rows = seeds_of("divqat", 0.6, 0.6, 0.6) + seeds_of("divqat", 0.7, 0.7, 0.7, treatment="argmax")
    rows += seeds_of("qat", 0.8, 0.8, 0.8, oracle="top1")
    found = compare(run_of(rows), "divqat", "soft", 400, baseline_oracle="top1")
    assert found is not None
    assert (found.verdict, found.difference) == ("lower", pytest.approx(-0.1))


def test_a_defended_victim_is_compared_with_equally_defended_plain_qat() -> None:
    rows = seeds_of("divqat", 0.5, 0.5, 0.5, defence="rounding")
    rows += seeds_of("qat", 0.6, 0.6, 0.6, defence="rounding") + seeds_of("qat", 0.9, 0.9, 0.9)
    found = compare(run_of(rows), "divqat", "soft", 400, defence="rounding")
    assert found is not None
    assert (found.verdict, found.difference) == ("lower", pytest.approx(-0.1))


def test_without_plain_qat_nothing_is_compared() -> None:
    assert compare(run_of(seeds_of("divqat", 0.5)), "divqat", "soft", 400) is None


def test_worst_case_is_the_best_attack_on_average_not_the_luckiest_clone() -> None:
    rows = [
        AttackRow.model_validate(row)
        for row in seeds_of("qat", 0.9, 0.5, attack="lucky")
        + seeds_of("qat", 0.8, 0.8, attack="steady")
    ]
    best = worst_case(rows)
    assert best is not None
    assert best.values == (0.8, 0.8)
    assert worst_case([]) is None


def test_the_headline_claims_nothing_on_one_seed() -> None:
    results = run_of(seeds_of("qat", 0.9) + seeds_of("divqat", 0.1))
    assert headline(results) == "No difference shown between DivQAT and plain QAT on d"
    assert "1 victim seed, and 3 are needed to tell" in " ".join(lead(results))


def test_the_headline_counts_and_the_price_is_named() -> None:
    rows = seeds_of("qat", 0.80, 0.81, 0.82) + seeds_of("divqat", 0.796, 0.795, 0.794)
    rows += seeds_of("qat", 0.6, 0.6, 0.6, budget=9, queries_used=9)
    rows += seeds_of("divqat", 0.6, 0.6, 0.6, budget=9, queries_used=9)
    victims = [row for row in victim_rows(3) if row["variant"] in ("qat", "divqat")]
    for row in victims:
        row["accuracy"] = {"qat": 0.95, "divqat": 0.90}[row["variant"]]
    results = run_of(rows, victims)
    assert headline(results).startswith("Clones of DivQAT victims were worse in 1 of 2 comparisons")
    told = " ".join(lead(results))
    assert "−5.0 points from plain QAT" in told
    assert "The clones lost no more than the victim itself paid." in told


def test_every_report_says_it_is_a_reconstruction() -> None:
    told = " ".join(lead(run_of([])))
    assert "reconstruction" in told
    assert "no number on this page is the paper's" in told
