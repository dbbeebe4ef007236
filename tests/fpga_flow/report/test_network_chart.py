"""The drawing of a branched hardware design."""

import re

import pytest

from fpga_flow.report.network_chart import network_charts
from fpga_flow.report.schema import DesignNode, Results, validate


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
