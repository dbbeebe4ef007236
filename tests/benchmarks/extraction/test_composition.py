"""A defence of the answers on plain QAT and on a protected victim, at one cost: table and claim."""

from typing import Any

import fixture_experiments
import pytest

from benchmarks.extraction.records import ExperimentRecord
from benchmarks.extraction.results import documents
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


def combined(found: Results) -> dict[tuple[str, str | None], Claim]:
    return {(c.victim, c.answers): c for c in claims(found) if c.claim == "combination improves"}


PLAIN = experiments("qat", SPEC, 0.70, 0.72)
HOLDS = experiments(OURS, SPEC, 0.60, 0.70), experiments(OURS, GATED, 0.50, 0.52)


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


def test_no_claim_while_an_attacker_of_plain_qat_has_not_met_the_victim() -> None:
    recovery = [
        experiment.model_copy(
            update={"treatment": "recovery", "name": f"{experiment.name}r", "clone_accuracy": 0.8}
        )
        for experiment in PLAIN[:3]
    ]
    found = combined(results([*PLAIN, *recovery], *HOLDS))
    for claim in found.values():
        assert claim.verdict == "undecided"
        assert "recovery" in claim.reason
        assert claim.baseline_clone_accuracy == pytest.approx(0.72)  # of the attackers in common
