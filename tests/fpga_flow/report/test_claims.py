"""Claims on results made so that the right word is known."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import attack_row

from fpga_flow.cli import main
from fpga_flow.report.claims import Claim, claims, equally_costly, unequal_costs
from fpga_flow.report.schema import Results, validate

WOBBLE = (0.0, 0.004, -0.004)  # of victim seeds
ACCURACY = {"qat": 0.90, "divqat-nasty": 0.895}
HARD = {"oracle": "top1", "treatment": "soft"}


def rows(victim: str, accuracy: float, seeds: int = 3, **changed: Any) -> list[dict[str, Any]]:
    """Two attack seeds a victim seed; the wobble is opposite for the two victims."""
    sign = 1 if victim == "qat" else -1
    return [
        attack_row(
            victim,
            round(accuracy + sign * WOBBLE[seed] / 4 + 0.001 * again, 5),
            victim_seed=seed,
            seed=again,
            **changed,
        )
        for seed in range(seeds)
        for again in (0, 1)
    ]


def results(*attacks: list[dict[str, Any]], **accuracy: float) -> Results:
    own = ACCURACY | {name.replace("_", "-"): value for name, value in accuracy.items()}
    victims = [
        {
            "variant": name,
            "bits": "w4a4",
            "seed": seed,
            "preset": None,
            "accuracy": value + WOBBLE[seed] / 4,
            "accuracy_engine": None,
            "engine": None,
            "ece": None,
            "l1_to_reference": None,
            "flips_from_reference": None,
        }
        for name, value in own.items()
        for seed in range(3)
    ]
    data = {"name": "digits", "train": 8, "test": 2, "classes": 10, "shape": [1, 8, 8]}
    document = {"schema": 1, "dataset": data, "victims": victims, "equivalence": []}
    attacked = [row for some in attacks for row in some]
    return validate(document | {"attacks": attacked, "summary": [], "hardware": []})


def one(found: list[Claim], claim: str, answers: str | None = None, **wanted: Any) -> Claim:
    (match,) = (
        c
        for c in found
        if (c.claim, c.answers) == (claim, answers)
        and all(getattr(c, name) == value for name, value in wanted.items())
    )
    return match


def test_a_clear_loss_of_the_soft_family_that_labels_undo() -> None:
    found = claims(
        results(
            rows("qat", 0.80),
            rows("qat", 0.79, **HARD),
            rows("divqat-nasty", 0.60),
            rows("divqat-nasty", 0.79, **HARD),
        )
    )
    soft = one(found, "clone degrades", "soft family")
    assert soft.verdict == "supported"
    assert soft.difference.mean == pytest.approx(-0.2, abs=1e-9)
    assert soft.difference.t is not None
    assert soft.difference.t.high < -0.19
    assert (soft.difference.victim_seeds, soft.difference.pairs) == (3, 6)
    assert soft.attack == "knockoff-random / soft / letters / vgg-small on soft"
    everyone = one(found, "clone degrades", "all")
    assert everyone.clone_accuracy == pytest.approx(0.7905)
    assert everyone.attack == "knockoff-random / soft / letters / vgg-small on top1"
    labels = one(found, "clone degrades", "all, against labels only")
    assert labels.verdict == "not supported"
    assert "excluded" in labels.reason


def test_a_difference_inside_its_own_noise_is_undecided() -> None:
    noisy = rows("divqat-nasty", 0.79)
    for row in noisy:
        row["clone_accuracy"] += 10 * WOBBLE[row["victim_seed"]]
    claim = one(claims(results(rows("qat", 0.80), noisy)), "clone degrades", "soft family")
    assert claim.verdict == "undecided"
    assert claim.reason == "the interval holds zero"


def test_two_victim_seeds_are_no_claim() -> None:
    found = claims(results(rows("qat", 0.80), rows("divqat-nasty", 0.10, seeds=2)))
    assert {claim.claim for claim in found} == {"victim accuracy holds"}


def test_the_attack_is_the_best_on_mean_and_worst_cases_are_compared() -> None:
    better = {"treatment": "argmax"}
    found = claims(
        results(
            rows("qat", 0.80),
            rows("qat", 0.70, **better),
            rows("divqat-nasty", 0.50),
            rows("divqat-nasty", 0.795, **better),
        )
    )
    claim = one(found, "clone degrades", "soft family")
    assert claim.difference.mean == pytest.approx(-0.005)
    assert claim.attack is not None
    assert "argmax" in claim.attack
    assert claim.baseline_attack is not None
    assert "argmax" not in claim.baseline_attack


def test_a_victim_that_paid_for_it_is_no_support_without_an_equal_plain_one() -> None:
    attacks = (rows("qat", 0.80), rows("divqat-nasty", 0.60))
    found = claims(results(*attacks, divqat_nasty=0.85))
    claim = one(found, "clone degrades", "soft family")
    assert claim.verdict == "undecided"
    assert "costs 5.0 points" in claim.reason
    assert claim.cost == pytest.approx(0.05)
    assert one(found, "victim accuracy holds").verdict == "not supported"
    equal = rows("qat-early", 0.70)
    found = claims(results(*attacks, equal, divqat_nasty=0.85, qat_early=0.853, qat_late=0.80))
    assert {c.against for c in found if c.claim == "clone degrades"} == {"qat", "qat-early"}
    claim = one(found, "clone degrades", "soft family", against="qat-early")
    assert claim.verdict == "supported"
    assert claim.difference.mean == pytest.approx(-0.1, abs=1e-9)
    assert all(c.victim == "divqat-nasty" for c in found)  # plain victims claim nothing


def test_an_attack_that_only_the_baseline_met_blocks_support() -> None:
    attacks = (
        rows("qat", 0.80),
        rows("divqat-nasty", 0.60),
        rows("qat", 0.5, attack="activethief"),
    )
    claim = one(claims(results(*attacks)), "clone degrades", "soft family")
    assert claim.verdict == "undecided"
    assert "activethief" in claim.reason


def test_a_better_attack_on_one_seed_is_named_and_blocks_support() -> None:
    lucky = rows("divqat-nasty", 0.9, seeds=1, attack="jbda")
    claim = one(
        claims(results(rows("qat", 0.8), rows("divqat-nasty", 0.6), lucky)),
        "clone degrades",
        "soft family",
    )
    assert claim.clone_accuracy == pytest.approx(0.6005)
    assert claim.verdict == "undecided"
    assert "jbda" in claim.reason


def test_kinds_of_pools_are_apart_each_at_its_largest_common_budget() -> None:
    free = {"pool": "none", "pool_kind": "free", "attack": "dfme"}
    found = claims(
        results(
            rows("qat", 0.8),
            rows("divqat-nasty", 0.6),
            rows("qat", 0.7, budget=5000, **free),
            rows("divqat-nasty", 0.7, budget=5000, **free),
            rows("divqat-nasty", 0.7, budget=9000, **free),
        )
    )
    assert one(found, "clone degrades", "all", pool_kind="out").verdict == "supported"
    claim = one(found, "clone degrades", "all", pool_kind="free")
    assert (claim.verdict, claim.budget) == ("not supported", 5000)


def test_defences_are_combined_at_an_equal_cost() -> None:
    def shielded(victim: str, accuracy: float, name: str, cost: float) -> list[dict[str, Any]]:
        return rows(victim, accuracy, defence=name, defence_l1=cost)

    found = results(
        shielded("qat", 0.70, "rs:0.5", 0.30),
        shielded("qat", 0.60, "rs:0.9", 0.52),
        shielded("qat", 0.10, "am:0.9", 0.50),
        shielded("divqat-nasty", 0.50, "rs:0.5", 0.50),
        shielded("divqat-nasty", 0.40, "rs:0.9", 0.90),
    )
    assert list(equally_costly(found, "divqat-nasty")) == [("rs:0.5", "rs:0.9")]
    claim = one(claims(found), "combination improves", "soft family")
    assert (claim.victim, claim.against) == ("divqat-nasty + rs:0.5", "qat + rs:0.9")
    assert claim.verdict == "supported"
    # Attacks without a defence are another claim.
    assert not [c for c in claims(found) if c.claim == "clone degrades"]


def test_defences_that_name_their_cost_are_paired_by_name() -> None:
    def shielded(victim: str, name: str, **changed: Any) -> list[dict[str, Any]]:
        return rows(victim, 0.5, defence=name, **changed)

    found = results(
        shielded("qat", "dcp@0.2", defence_l1=0.2),
        shielded("qat", "dcp:0.9", defence_l1=0.3),
        shielded("qat", "noise@0.2"),
        shielded("divqat-nasty", "dcp@0.2", defence_l1=0.3),
        shielded("divqat-nasty", "dcp@0.3", defence_l1=0.2),
        shielded("divqat-nasty", "noise@0.2", defence_l1=0.2),
    )
    pairs = list(equally_costly(found, "divqat-nasty"))
    assert pairs == [("dcp@0.2", "dcp@0.2"), ("noise@0.2", "noise@0.2")]
    assert "an ℓ1 of 0.3, and of 0.2" in unequal_costs(found, "divqat-nasty", *pairs[0])
    assert unequal_costs(found, "divqat-nasty", *pairs[1]) == ""  # not known of both


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0), capsys.readouterr().out


@pytest.mark.slow  # trains and attacks for its page
def test_command_on_a_run_a_file_and_a_folder(
    reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(["report", "--claims", str(reported)], capsys)
    assert code == 0
    assert "[undecided] " in text or "[not supported] " in text
    file = reported / "report" / "results.json"
    assert run(["report", str(file), "--claims"], capsys) == (0, text)
    for name in ("a", "b"):
        (tmp_path / f"results-{name}.json").write_text(file.read_text("utf-8"), "utf-8")
    code, text = run(["report", "--claims", str(tmp_path), "--json"], capsys)
    document = json.loads(text)
    assert code == 0
    assert [Path(one["file"]).name for one in document["results"]] == [
        "results-a.json",
        "results-b.json",
    ]
    claim = document["results"][0]["claims"][0]
    assert claim["verdict"] in ("supported", "not supported", "undecided")
    assert set(claim["difference"]) == {
        "mean",
        "t",
        "bootstrap",
        "these",
        "basis",
        "victim_seeds",
        "pairs",
    }


def test_command_without_results_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = run(["report", "--claims", str(tmp_path)], capsys)
    assert code == 2
