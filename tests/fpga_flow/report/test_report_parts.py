"""The page's claim, verification levels, floorplan, confusion, examples and hashes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import attack_row, put, put_bitstream, put_evidence
from test_report_page import page_of

from divqat_brevitas.errors import InputError
from fpga_flow.report import build_report, collect, read
from fpga_flow.report.collection import LARGEST, confusion, worst_case_confusions
from fpga_flow.report.hardness import hardness, sentence
from fpga_flow.report.schema import AttackRow

Maker = Callable[..., Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that a page can show."""
    from synthetic_run import build

    run = build(tmp_path_factory.mktemp("whole") / "run", seeds=3, divqat_drop=0.2)
    put_evidence(run)
    put_bitstream(run)
    build_report(run)
    return run


@pytest.mark.slow  # trains and attacks for its page
def test_the_head_has_the_worst_cases_of_the_deployed_model(whole: Path) -> None:
    rows = hardness(read(whole / "report" / "results.json"))
    source = (whole / "report" / "index.html").read_text()
    head = source[: source.index("<main")]
    told = [sentence(row) for row in rows if row.victim == rows[0].victim]
    assert len(told) == 2
    for one in told:
        assert f'class="finding">{one}</p>' in head
    for word in ("supported", "undecided"):
        assert word not in head.lower()


@pytest.mark.slow  # trains and attacks for its page
def test_a_level_that_failed_and_one_of_an_unknown_name_are_shown(make_run: Maker) -> None:
    run = make_run()
    rows = json.loads((run / "simulate" / "equivalence.json").read_text())
    row = {"variant": "qat", "inputs": 5, "unit": "accumulators"}
    rows += [
        row | {"a": "rtl", "b": "netlist", "mismatches": 2},
        row | {"a": "chip", "b": "tea leaves", "mismatches": 0},
    ]
    put(run / "simulate" / "equivalence.json", rows)
    build_report(run)
    levels = {
        row[0]: row[1:] for row in page_of(run).tables["Verification levels from float to chip"][1:]
    }
    assert levels["RTL → netlist after synthesis"] == [
        "– not run",
        "✗ 2 differ (5 inputs)",
        "– not run",
    ]
    assert levels["chip → tea leaves"][1] == "✓ identical (5 inputs)"


def test_a_damaged_placement_is_refused(make_run: Maker) -> None:
    run = make_run()
    put_bitstream(run)
    put(run / "compile" / "qat" / "bitstream" / "routed.json", {"modules": {}})
    with pytest.raises(InputError, match=r"routed\.json"):
        collect(run)


def test_confusion_counts_and_is_left_out_for_many_classes() -> None:
    labels, answered = np.array([0, 1, 1, 2]), np.array([0, 2, 1, 2])
    assert confusion(labels, answered, 3) == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert confusion(labels, answered, LARGEST + 1) is None


def test_of_clones_the_worst_cases_at_the_largest_budget_is_kept() -> None:
    lucky = {"attack": "jbda"}
    rows = [
        attack_row("qat", accuracy, budget=budget, pool_kind=kind, confusion=[[at]], **more)
        for at, (accuracy, budget, kind, more) in enumerate(
            [
                (0.9, 100, "out", {}),
                (0.5, 400, "out", {}),
                (0.6, 400, "out", {"treatment": "argmax"}),
                (0.7, 400, "in", {}),
                (0.6, 400, "out", {"treatment": "argmax", "victim_seed": 1}),
                (0.99, 400, "out", lucky),  # on one victim of two
                (0.99, 400, "out", {"defence": "rounding:1"}),
            ]
        )
    ]
    parsed = [AttackRow.model_validate(row) for row in rows]
    assert [row.counts for row in worst_case_confusions(parsed)] == [[[2]], [[3]]]


def test_what_is_no_base64_never_gets_into_the_page(make_run: Maker) -> None:
    run = make_run()
    put_evidence(run)
    path = run / "report" / "evidence.json"
    shown = json.loads(path.read_text())
    shown["examples"][0]["png"] = '"><script>alert(1)</script>'
    put(path, shown)
    with pytest.raises(InputError, match=r"evidence\.json"):
        collect(run)
