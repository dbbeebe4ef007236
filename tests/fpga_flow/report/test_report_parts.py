"""The page's claim, verification levels, floorplan, confusion, examples and hashes."""

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import PIXEL, attack_row, put, put_bitstream, put_evidence, victim_rows
from test_report_page import Page, page_of

from divqat_brevitas.errors import InputError
from fpga_flow.report import build_report, collect, read
from fpga_flow.report.confusion import LARGEST, confusion, worst_case_confusions
from fpga_flow.report.hardness import hardness, heading, sentence
from fpga_flow.report.page import page
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


def test_the_heading_without_attacks_says_so(make_run: Maker) -> None:
    assert heading(collect(make_run(attacked=False))) == "4 victims on digits, not attacked yet"


def test_the_verification_levels_say_what_was_not_run(whole: Path) -> None:
    levels = {
        row[0]: row[1:]
        for row in page_of(whole).tables["Verification levels from float to chip"][1:]
    }
    assert levels["quantized, in torch → QONNX"] == ["✓ identical (1,000 inputs)"] * 3
    assert levels["integer engine → FINN, after each step"][0].startswith("✓ identical")
    for name in ("integer engine → RTL", "RTL → netlist after synthesis"):
        assert levels[name] == ["– not run"] * 3
    assert levels["float → quantized, in torch"] == ["1.3 % decided differently"] * 3


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


def test_use_of_the_device_and_the_map_of_its_tiles(whole: Path) -> None:
    tables = page_of(whole).tables
    assert tables["Use of the device: numbers"][1:] == [
        ["LUT", "12.5"],
        ["FF", "2"],
        ["block RAM", "50"],
        ["DSP", "0"],
    ]
    # The FIFO's tile belongs to its layer, two cells of one tile count once.
    assert tables["Where qat lies on LFE5U-85F-6CABGA381: numbers"][1:] == [
        ["1", "MVAU_0", "2", "5–6, 9–9"],
        ["2", "(interface)", "1", "1–1, 2–2"],
    ]
    assert "<image" in (whole / "report" / "index.html").read_text()


def test_without_a_placed_design_the_page_says_so(reported: Path) -> None:
    assert "Placement: not run." in "".join(page_of(reported).text)


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


def test_victim_and_clone_stand_side_by_side(whole: Path) -> None:
    page = page_of(whole)
    victim = page.tables["divqat, seed 0: first 301 test images (99.7 % right)"]
    assert victim[1] == ["0", "30", "1", *"00000000"]
    clone = (
        "Clone of divqat, seed 0: knockoff-random / soft / letters / vgg-small on soft, "
        "400 queries (10.0 % right)"
    )
    assert [row[5] for row in page.tables[clone][1:]] == ["10"] * 10
    stored = json.loads((whole / "report" / "results.json").read_text())
    assert len(stored["confusions"]) == 4  # two victims, a worst case a kind of pool
    assert not any("confusion" in row for row in stored["attacks"])


def test_examples_show_image_and_probabilities(whole: Path) -> None:
    page = page_of(whole)
    head, first, second = page.tables["Images and the answers to them"]
    assert head == ["Image", "True class", "qat", "divqat"]
    assert first[1] == "3"
    assert first[2].split()[:6] == ["0", "90.0", "%", "1", "1.1", "%"]
    assert first[2].split()[-3:] == ["others", "7.8", "%"]
    assert second[0] == "the attacker's image 1 of letters"
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert images == [f"data:image/png;base64,{PIXEL}"] * 2
    described = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert described == ["test image 1: 3", "the attacker's image 1 of letters"]


def test_what_is_no_base64_never_gets_into_the_page(make_run: Maker) -> None:
    run = make_run()
    put_evidence(run)
    path = run / "report" / "evidence.json"
    shown = json.loads(path.read_text())
    shown["examples"][0]["png"] = '"><script>alert(1)</script>'
    put(path, shown)
    with pytest.raises(InputError, match=r"evidence\.json"):
        collect(run)


def test_a_page_without_evidence_says_so(reported: Path) -> None:
    told = "".join(page_of(reported).text)
    assert "Confusion: not recorded." in told
    assert "Examples: not recorded." in told


@pytest.mark.slow  # trains and attacks for its page
def test_files_to_compare_are_there_with_their_hashes(make_run: Maker) -> None:
    run = make_run()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["train"]["outputs"] = {
        "train/qat.safetensors": "ab" * 32,
        "train/metrics.jsonl": "cd" * 32,
    }
    put(run / "manifest.json", manifest)
    results = build_report(run)
    digest = hashlib.sha256((run / "config.toml").read_bytes()).hexdigest()
    assert results.run.files == {"config.toml": digest, "train/qat.safetensors": "ab" * 32}
    assert f"{digest}  config.toml\n{'ab' * 32}  train/qat.safetensors" in "".join(
        page_of(run).text
    )


def test_every_chart_has_its_numbers_as_a_table(whole: Path) -> None:
    page = page_of(whole)
    charts = page.tags.count("figure")
    assert charts == page.tags.count("svg") > 0
    assert len([name for name in page.tables if name.endswith(": numbers")]) == charts


def test_headings_go_down_one_level_at_a_time(whole: Path) -> None:
    levels = [int(tag[1]) for tag in page_of(whole).tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


@pytest.mark.slow  # trains and attacks for its page
def test_old_results_without_the_new_parts_still_make_a_page(reported: Path) -> None:
    stored = json.loads((reported / "report" / "results.json").read_text())
    for name in ("placement", "confusions", "examples"):
        del stored[name]
    del stored["run"]["files"]
    from fpga_flow.report import validate

    shown = Page(page(validate(stored)))
    assert "Victims on the test set" in shown.tables


def test_rows_of_victims_alone_are_enough(make_run: Maker) -> None:
    run = make_run(attacked=False)
    put(run / "train" / "victims.json", victim_rows(1)[:1])
    results = build_report(run)
    assert hardness(results) == []
