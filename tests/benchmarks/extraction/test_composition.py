"""A defence of the answers on plain QAT and on a protected victim, at one cost: table and claim."""

import json
from pathlib import Path
from typing import Any

import fixture_experiments
import pytest

from benchmarks.extraction.publish import results_page
from benchmarks.extraction.records import ExperimentRecord
from benchmarks.extraction.results import documents, write_documents
from benchmarks.extraction.tables import defence_table
from fpga_flow.cli import main
from fpga_flow.report.claims import Claim, claims
from fpga_flow.report.schema import Results

SPEC = "reverse-sigmoid@0.2"
GATED = f"gate:0:0.05+{SPEC}"
OURS = "divqat-literal"  # within a point of plain QAT's accuracy
SOFT, ARGMAX = fixture_experiments.ATTACKERS[:2]


def experiments(
    victim: str, defence: str, soft: float, argmax: float, reached: float = 0.2, **changed: Any
) -> list[ExperimentRecord]:
    """Both attackers at three seeds, the cost as an experiment records it."""
    found = {"spec": "reverse-sigmoid:0.4", "strength": 0.4, "target": 0.2, "shortfall": ""}
    paid = {"l1": reached + 0.01, "labels_changed": 0.0, "pool": {"l1": 0.5}}
    paid["found"] = found | {"cost": {"l1": reached, "labels_changed": 0.0}}
    wobble = (0.0, 0.004, -0.004)
    return [
        fixture_experiments.experiment(
            victim, seed, attacker, 8000, value + wobble[seed], defence
        ).model_copy(update={"defence_cost": paid} | changed)
        for attacker, value in ((SOFT, soft), (ARGMAX, argmax))
        for seed in fixture_experiments.SEEDS
    ]


def results(*groups: list[ExperimentRecord]) -> Results:
    (found,) = documents([experiment for group in groups for experiment in group]).values()
    return found


def lines(found: Results) -> list[list[str]]:
    """The table's rows, without the legend and the head."""
    rows = [line for line in defence_table(found) if line.startswith("|")][2:]
    return [[experiment.strip() for experiment in row.strip("|").split("|")] for row in rows]


def combined(found: Results) -> dict[tuple[str, str | None], Claim]:
    return {(c.victim, c.answers): c for c in claims(found) if c.claim == "combination improves"}


PLAIN = experiments("qat", SPEC, 0.70, 0.72)
HOLDS = experiments(OURS, SPEC, 0.60, 0.70), experiments(OURS, GATED, 0.50, 0.52)


def test_one_row_a_victim_and_the_difference_to_plain_qat() -> None:
    rows = lines(results(PLAIN, *HOLDS))
    queries = "out-of-distribution, 8,000"
    assert [row[:3] for row in rows] == [
        [SPEC, queries, victim] for victim in ("qat", OURS, f"{OURS}+gate")
    ]
    assert {row[3] for row in rows} == {"0.200 ± 0.000"}
    assert {row[4] for row in rows} == {"0.500 ± 0.000"}
    # The best attacker of both: the one that hardens the answers.
    assert [row[5] for row in rows] == ["72.0 ± 0.4", "70.0 ± 0.4", "52.0 ± 0.4"]
    assert [row[6] for row in rows] == [row[5] for row in rows]
    assert [row[7].strip("*").partition(" ")[0] for row in rows] == ["–", "−2.0", "−20.0"]


def test_the_claim_holds_with_and_without_the_gate() -> None:
    found = combined(results(PLAIN, *HOLDS))
    names = [f"{OURS} + {SPEC}", f"{OURS}+gate + {SPEC}"]
    assert list(found) == [(name, answers) for name in names for answers in ("soft family", "all")]
    for claim in found.values():
        assert (claim.against, claim.verdict) == (f"qat + {SPEC}", "supported")
    assert found[names[0], "all"].difference.mean == pytest.approx(-0.02)
    assert found[names[1], "all"].difference.mean == pytest.approx(-0.20)


def test_an_attacker_that_hardens_answers_undoes_the_claim() -> None:
    """Worse clones of the answers as they come are no gain if hardening brings them back."""
    found = combined(results(PLAIN, experiments(OURS, SPEC, 0.40, 0.72)))
    assert {claim.verdict for claim in found.values()} == {"not supported"}


def test_no_claim_at_unequal_cost() -> None:
    weaker = results(experiments("qat", SPEC, 0.70, 0.72, reached=0.12), HOLDS[0])
    for claim in combined(weaker).values():
        assert claim.verdict == "undecided"
        assert claim.reason.startswith("the defences cost unequally: an ℓ1 of 0.2, and of 0.12")
    plain, ours = lines(weaker)
    assert plain[3] == "0.120 ± 0.000, no more"
    assert ours[7].endswith(" ‡")
    assert "‡ The defences cost unequally" in results_page({"digits": weaker}, [])


def test_no_claim_while_an_attacker_of_plain_qat_has_not_met_the_victim() -> None:
    recovery = [
        experiment.model_copy(
            update={
                "treatment": "recovery",
                "name": f"{experiment.name}r",
                "clone_accuracy": 0.8,
            }
        )
        for experiment in PLAIN[:3]
    ]
    found = combined(results([*PLAIN, *recovery], *HOLDS))
    for claim in found.values():
        assert claim.verdict == "undecided"
        assert "recovery" in claim.reason
        assert claim.baseline_clone_accuracy == pytest.approx(0.72)  # of the attackers in common


def test_a_defence_that_names_no_cost_is_compared_by_name_and_marked() -> None:
    def rounded(victim: str, value: float, l1: float) -> list[ExperimentRecord]:
        paid = {"l1": l1, "labels_changed": 0.0, "pool": None}
        return experiments(victim, "rounding:1", value, value, defence_cost=paid)

    found = results(rounded("qat", 0.7, 0.02), rounded(OURS, 0.6, 0.05))
    assert combined(found) == {}
    plain, ours = lines(found)
    assert (plain[3], plain[4], ours[4]) == ("0.020 ± 0.000", "–", "–")
    assert ours[7].startswith("**−10.0")
    assert ours[7].endswith(" ‡")


@pytest.mark.parametrize(("ours", "word"), [(0.60, "supported"), (0.75, "not supported")])
def test_the_command_judges_it_from_the_documents(
    ours: float, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = documents(
        [*PLAIN, *experiments(OURS, SPEC, ours, ours), *experiments(OURS, GATED, ours, ours)]
    )
    write_documents(found, tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["report", "--claims", str(tmp_path), "--json"])
    assert not left.value.code
    (document,) = json.loads(capsys.readouterr().out)["results"]
    assert document["count"]["combination improves"] == {word: 4}
