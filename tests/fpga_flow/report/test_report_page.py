"""The page: its parts, its words, and what must never get into it."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_run import attack_row, put, put_bitstream, put_evidence, victim_rows

from divqat_brevitas.errors import InputError
from fpga_flow.report import build_report, collect, read, summary_text
from fpga_flow.report.collection import LARGEST, confusion, worst_case_confusions
from fpga_flow.report.hardness import hardness, sentence
from fpga_flow.report.runs import POOLS
from fpga_flow.report.schema import AttackRow
from fpga_flow.report.summary import equivalence_line

Maker = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_charts")
VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "<script>alert('x')</script>\"><img src=//evil>&amp; $x$ \x1b[31m"


class Page(HTMLParser):
    """What a page holds: tables as rows of text with exact values, ids, attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, list[list[float]]] = {}
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.numbers: list[list[float]] = []
        self.caption = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows, self.numbers, self.caption = [], [], ""
        elif tag == "tr":
            self.rows.append([])
            self.numbers.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "data" and "table" in self.open:
            self.numbers[-1].append(float(dict(attrs)["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        if tag == "table":
            self.tables[self.caption] = self.rows
            self.values[self.caption] = self.numbers

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def page_of(run: Path) -> Page:
    page = Page((run / "report" / "index.html").read_text(encoding="utf-8"))
    assert page.open == [], "every element is closed"
    return page


def test_numbers_in_the_page_are_those_of_results_json(reported: Path) -> None:
    raw: dict[str, Any] = json.loads((reported / "report" / "results.json").read_text())
    page = page_of(reported)

    victims = page.values["Victims on the test set"][1:]
    fields = ("accuracy", "accuracy_engine", "ece", "l1_to_reference", "flips_from_reference")
    assert victims == [
        [row[name] for name in fields if row[name] is not None] for row in raw["victims"]
    ]
    equal = page.values["Engines compared"][1:]
    assert equal == [[row["inputs"], row["mismatches"]] for row in raw["equivalence"]]
    clones = page.values["Every clone"][1:]
    fields = ("budget", "queries_used", "clone_accuracy", "agreement")
    assert clones == [[row[name] for name in fields] for row in raw["attacks"]]
    hardware = page.values["Resources and speed"][1:]
    fields = ("lut", "bram", "dsp", "cycles_per_image", "images_per_s")
    assert hardware == [[row[name] for name in fields] for row in raw["hardware"]]

    caption = "Clones at 400 queries, the largest budget"
    kinds = {"out": "out-of-distribution", "in": "in-distribution"}
    expected = {
        (row["victim"], row["oracle"], kinds[row["pool_kind"]]): row
        for row in raw["summary"]
        if row["budget"] == 400
    }
    assert len(page.tables[caption][1:]) == len(expected) == 16
    fields = ("budget", "victim_accuracy", "naive_clone_accuracy", "worst_case_clone_accuracy")
    for row, numbers in zip(page.tables[caption][1:], page.values[caption][1:], strict=True):
        summary = expected[row[0], row[1], row[2]]
        assert numbers[:4] == [summary[name] for name in fields]
        assert f"{100 * summary['worst_case_clone_accuracy']:.1f} %" in row[6]


def test_the_page_is_self_contained(reported: Path) -> None:
    source = (reported / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", source)
    page = page_of(reported)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert name != "src", tag
        assert not name.startswith("on"), (tag, name)
        if name == "href":
            assert value.startswith("#"), value


def test_links_lead_somewhere_and_ids_are_unique(reported: Path) -> None:
    attributes = page_of(reported).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in attributes if name == "href"} <= set(ids)
    named = [v for _, name, value in attributes if name == "aria-labelledby" for v in value.split()]
    assert set(named) <= set(ids)


def test_equality_is_told_in_words_and_a_difference_too(make_run: Maker) -> None:
    run = make_run()
    rows = json.loads((run / "simulate" / "equivalence.json").read_text())
    rows[1]["mismatches"] = 17
    put(run / "simulate" / "equivalence.json", rows)
    results = build_report(run)
    told = [row[-1] for row in page_of(run).tables["Engines compared"][1:]]
    assert told[:2] == ["✓ 0, identical", "✗ 17, differ"]
    assert equivalence_line(results).startswith("17 mismatches in 9 comparisons")
    assert "ptq qonnx → integer" in equivalence_line(results)


@pytest.mark.slow  # trains and attacks for its page
def test_differences_by_float_noise_are_counted_and_are_no_fault(make_run: Maker) -> None:
    run = make_run()
    rows = json.loads((run / "simulate" / "equivalence.json").read_text())
    noise = {"engine": "qonnx", "images": 2, "places": {"relu1": 3}, "logits": 2, "labels": 1}
    rows[1] |= {"mismatches": 2, "by_noise": 2, "noise": [noise]}
    put(run / "simulate" / "equivalence.json", rows)
    results = build_report(run)
    told = [row[-1] for row in page_of(run).tables["Engines compared"][1:]]
    assert told[:2] == ["✓ 0, identical", "✓ 2, 2 by float noise"]
    assert equivalence_line(results).startswith("2 mismatches in 9 comparisons")
    assert equivalence_line(results).endswith("2 of them by float noise")
    source = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "float noise decided 3 codes of 2 images (relu1); logits of 2 and labels of 1" in source


def test_without_finn_the_page_says_why_and_shows_the_rest(make_run: Maker) -> None:
    run = make_run(finn=False)
    results = build_report(run)
    page = page_of(run)
    told = "".join(page.text)
    assert "Hardware: not run: finn-plus is not installed" in told
    assert "Resources and speed" not in page.tables
    assert "Engines compared" in page.tables
    assert "not run: finn-plus is not installed" in summary_text(results)


def test_without_attacks_the_page_is_whole(make_run: Maker) -> None:
    run = make_run(attacked=False)
    results = build_report(run)
    page = page_of(run)
    assert "not attacked yet" in "".join(page.text)
    assert "Every clone" not in page.tables
    assert len(summary_text(results).splitlines()) == 5


def test_hostile_names_stay_text(make_run: Maker) -> None:
    run = make_run()
    victims = [row | {"variant": HOSTILE, "bits": HOSTILE} for row in victim_rows(1)[:1]]
    put(run / "train" / "victims.json", victims)
    for path in (run / "attack").glob("*.json"):
        path.unlink()
    row = attack_row(HOSTILE, attack=HOSTILE, pool=HOSTILE, surrogate=HOSTILE)
    put(run / "attack" / "0.json", row)
    layer = {"name": HOSTILE, "op": HOSTILE, "weight_bits": 4, "parameters": 3, "macs": 4}
    put(run / "export" / "network_qat.json", [layer])
    put(run / "config.toml", f"[run]\nname = '''{HOSTILE.replace(chr(27), '')}'''\n")
    dataset = json.loads((run / "train" / "dataset.json").read_text())
    put(run / "train" / "dataset.json", dataset | {"name": HOSTILE})
    results = build_report(run)
    source = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in source
    assert "<img" not in source
    page = page_of(run)
    assert page.tables["Victims on the test set"][1][0] == HOSTILE.replace("\x1b", "\ufffd")
    text = summary_text(results)
    assert "\x1b" not in text, "a terminal would obey it"
    assert len(text.splitlines()) == 5


def test_the_five_lines_say_what_was_found(make_run: Maker) -> None:
    run = make_run()
    results = collect(run)
    lines = summary_text(results, Path("runs/demo/report/index.html")).splitlines()
    starts = [line.split()[0] for line in lines]
    assert starts == ["victims", "equivalence", "clones", "hardware", "page"]
    assert "qat 97.3 %" in lines[0]
    assert lines[1].split(maxsplit=1)[1] == "0 mismatches in 9 comparisons of 1,000 inputs"
    clones = [
        f"{name} {100 * max(row.worst_case_clone_accuracy for row in rows):.1f} %"
        for kind, name in POOLS.items()
        if (rows := [r for r in results.summary if (r.victim, r.pool_kind) == ("qat", kind)])
    ]
    assert len(clones) == 2
    assert lines[2].split("; ")[1] == f"qat {', '.join(clones)}"
    assert lines[2].endswith("(worst case at 400 queries)")
    assert "qat estimate on xc7z020clg400-1: 8,123 LUT, 76,278 images/s" in lines[3]
    assert lines[4].endswith(" runs/demo/report/index.html")


def test_a_damaged_report_of_a_bitstream_is_refused(make_run: Maker) -> None:
    run = make_run()
    put(run / "compile" / "qat" / "bitstream" / "report.json", {"layers": 3})
    with pytest.raises(InputError, match="one row a layer"):
        collect(run)


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
