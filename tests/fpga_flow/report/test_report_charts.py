"""Charts of the page, and the drawing of a branched hardware design."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from divqat_brevitas.errors import ToolMissingError
from fpga_flow.report import collect
from fpga_flow.report.charts import COLOURS, LINE, Chart
from fpga_flow.report.network_chart import network_charts
from fpga_flow.report.run_charts import (
    clone_curves,
    estimate_charts,
    layer_charts,
    training_curves,
    victim_accuracy,
)
from fpga_flow.report.schema import DesignNode, LayerRow, Results, validate

Maker = Callable[..., Path]


@pytest.fixture
def charts(make_run: Maker) -> list[Chart]:
    results = collect(make_run(seeds=3))
    return [
        *victim_accuracy(results),
        *clone_curves(results),
        *training_curves(results),
        *layer_charts("qat", 0, results.layers["qat"]),
        *estimate_charts("qat", 0, results.estimates["qat"]),
    ]


@pytest.mark.slow  # trains and attacks for its page
def test_charts_are_well_formed_labelled_and_self_contained(charts: list[Chart]) -> None:
    for chart in charts:
        root = ET.fromstring(chart.svg)
        assert (root.tag, root.get("role")) == ("svg", "img")
        title, description = root.findall("title") + root.findall("desc")
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert title.text == chart.title
        assert len(description.text or "") > 20
        assert "http" not in chart.svg


def test_ids_are_unique_and_every_reference_is_met(charts: list[Chart]) -> None:
    together = "".join(chart.svg for chart in charts)
    ids = re.findall(r'\bid="([^"]+)"', together)
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)", together) + re.findall(r'href="#([^"]+)"', together)
    assert used
    assert set(used) <= set(ids)


def test_only_colours_that_are_seen_in_both_themes_are_drawn(charts: list[Chart]) -> None:
    for chart in charts:
        # The style sheet colours text; black and white of matplotlib's own would vanish.
        drawn = re.sub(r"<text[^>]*>", "", chart.svg)
        assert set(re.findall(r"#[0-9a-fA-F]{6}\b", drawn)) <= {*COLOURS, LINE}


def test_the_description_says_the_numbers(make_run: Maker) -> None:
    results = collect(make_run())
    (first, *_) = clone_curves(results)
    best = max(
        row.clone_accuracy
        for row in results.attacks
        if (row.victim, row.oracle, row.pool_kind, row.budget) == ("float", "soft", "in", 400)
    )
    assert f"float, worst-case clone's accuracy, % {100 * best:.4g}" in first.description


@pytest.mark.slow  # trains and attacks for its page
@pytest.mark.parametrize(
    "name", ["$x^", "<script>", "_hidden", "\x00\x1b[31m", "é\ud800", "x" * 99]
)
def test_any_layer_name_can_be_drawn(name: str) -> None:
    row = LayerRow(name=name, op="Conv", weight_bits=4, activation_bits=4, parameters=9, macs=9)
    for chart in layer_charts(name, 0, [row, row]):
        ET.fromstring(chart.svg)
        chart.svg.encode("utf-8")
        assert "<script>" not in chart.svg


def test_without_matplotlib_the_extra_is_named(
    make_run: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = collect(make_run())
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ToolMissingError, match=re.escape("pip install '.[report]'")):
        _ = victim_accuracy(results)[0].svg


def results(*nodes: DesignNode) -> Results:
    digits = {"name": "digits", "train": 8, "test": 2, "classes": 10, "shape": [1, 8, 8]}
    empty = {"victims": [], "equivalence": [], "attacks": [], "summary": [], "hardware": []}
    designs = {"qat": [node.model_dump() for node in nodes]}
    return validate({"schema": 1, "dataset": digits, **empty, "designs": designs})


def node(name: str, op: str, *sources: str, **values: int) -> DesignNode:
    return DesignNode(name=name, op=op, sources=list(sources), **values)


HEAD = (
    node("input_fifo", "StreamingFIFO", "input", depth=16),
    node("a", "MVAU", "input_fifo", cycles=300),
    node("f", "DuplicateStreams", "a", cycles=64),
)
BRANCH = (
    node("p", "FMPadding", "f_0", cycles=100),
    node("w", "ConvolutionInputGenerator", "p", cycles=576),
    node("w_fifo", "StreamingFIFO", "w", depth=16),
    node("m", "MVAU", "w_fifo", cycles=512),
    node("t", "Thresholding", "m", cycles=64),
    node("t_dwc", "StreamingDataWidthConverter", "t", cycles=64),
)
SHORTCUT = node("f_1_fifo", "StreamingFIFO", "f_1", depth=64, least=23)


@pytest.mark.parametrize(
    ("op", "word"), [("ElementwiseAdd", "sum"), ("StreamingConcat", "concatenation")]
)
@pytest.mark.parametrize("ports", [("t_dwc", "f_1_fifo"), ("f_1_fifo", "t_dwc")])
def test_a_line_a_layer_and_the_shortcuts_fifo(op: str, word: str, ports: tuple[str, str]) -> None:
    join = node("j", op, *ports, cycles=64)
    (chart,) = network_charts(results(*HEAD, *BRANCH, SHORTCUT, join))
    assert [row[0] for row in chart.rows] == ["a", "f", "m", "j"]
    assert [row[1] for row in chart.rows] == ["MVAU", "fork", "MVAU", word]
    assert [row[2] for row in chart.rows] == ["300", "64", "576", "64"]  # of the slowest part
    assert [row[3] for row in chart.rows] == ["–", "–", "–", "64 (≥ 23)"]
    drawn = re.sub(r"<title.*?</desc>", "", str(chart.svg))
    for text in ("a, 300 cycles", "m, 576 cycles (slowest)", f"{word}, FIFO 64 (≥ 23)"):
        assert drawn.count(text) >= 1


def test_a_chain_has_no_drawing() -> None:
    assert network_charts(results(*HEAD[:2])) == []


@pytest.mark.parametrize(
    "nodes",
    [
        (*HEAD, node("x", "MVAU", "f_0"), node("y", "MVAU", "f_1")),  # branches that do not meet
        (*HEAD, node("x", "MVAU", "unknown"), node("j", "ElementwiseAdd", "x", "f_0")),
        (*HEAD, node("j", "ElementwiseAdd", "j", "f_0")),
    ],
)
def test_what_is_no_network_of_branches_is_not_drawn(nodes: tuple[DesignNode, ...]) -> None:
    assert network_charts(results(*nodes)) == []
