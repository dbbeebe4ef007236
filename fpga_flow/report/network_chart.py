"""A branched hardware design as a drawing: main path, shortcuts with their FIFOs, and joins."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fpga_flow.folding import shapes
from fpga_flow.folding.branches import INPUT, Element, TangledError, series_parallel
from fpga_flow.folding.shapes import LayerShape
from fpga_flow.report import schema
from fpga_flow.report.charts import COLOURS, Chart
from fpga_flow.report.runs import in_order, printable

_WORDS = {shapes.FORK: "fork", shapes.JOIN: "sum", shapes.CONCAT: "concatenation"}
_CARRIERS = (shapes.FIFO, shapes.CONVERTER)
_FIRST = (shapes.PADDING, shapes.WINDOW)  # belong to the layer behind them
_ROW = 0.25  # inches


@dataclass
class _Line:
    """One row of the drawing: a layer, with the parts before and behind that belong to it."""

    parts: list[schema.DesignNode]
    lane: int

    @property
    def op(self) -> str:
        return self.main.op

    @property
    def main(self) -> schema.DesignNode:
        """The layer that it is named after."""
        named = [part for part in self.parts if part.op != shapes.THRESHOLDING]
        return named[-1] if named else self.parts[-1]

    @property
    def cycles(self) -> float:
        return max(float(part.cycles or 0) for part in self.parts)


@dataclass
class _Edge:
    """From one line to another, along a lane; through ``fifos`` of a shortcut."""

    first: int
    last: int
    lane: int
    fifos: list[schema.DesignNode] = field(default_factory=list)


@dataclass
class _Drawing:
    nodes: dict[str, schema.DesignNode]
    fifos: dict[str, list[list[schema.DesignNode]]]  # of every input, by the layer that reads it
    lines: list[_Line] = field(default_factory=list)
    edges: list[_Edge] = field(default_factory=list)

    def place(self, elements: Sequence[Element], lane: int, above: int | None) -> tuple[int, int]:
        """Append the elements' lines; the last line (-1: none), and the lanes taken."""
        parts: list[schema.DesignNode] = []
        last, width = -1 if above is None else above, 1
        for element in elements:
            if isinstance(element, LayerShape):
                node = self.nodes[element.name]
                line = self.lines[last] if last >= 0 and last != above else None
                if node.op == shapes.THRESHOLDING and line and line.op in shapes.PRODUCTS:
                    line.parts.append(node)
                    continue
                parts.append(node)
                if node.op not in _FIRST:
                    last = self._append(parts, lane, last)
                    parts = []
                continue
            # The longest branch goes straight on.
            order = sorted(enumerate(element.branches), key=lambda one: -len(one[1]))
            ends, free = [], lane
            for number, branch in order:
                end, taken = self.place(branch, free, last)
                ends.append((end, free, self.fifos[element.join.name][number]))
                free += taken
            width = max(width, free - lane)
            join = self._append([self.nodes[element.join.name]], lane, -1)
            self.edges += [_Edge(end, join, place, fifos) for end, place, fifos in ends]
            last = join
        return last, width

    def _append(self, parts: list[schema.DesignNode], lane: int, above: int) -> int:
        self.lines.append(_Line(parts, lane))
        number = len(self.lines) - 1
        if above >= 0:
            self.edges.append(_Edge(above, number, lane))
        return number


def network_charts(results: schema.Results) -> list[Chart]:
    """The branched networks among the designs; none of a chain."""
    found = (
        _chart(variant, number, results.designs[variant])
        for number, variant in enumerate(in_order(results, results.designs))
    )
    return [chart for chart in found if chart is not None]


def _chart(variant: str, number: int, nodes: Sequence[schema.DesignNode]) -> Chart | None:
    if not any(node.op == shapes.FORK for node in nodes):
        return None
    fifos: dict[str, list[list[schema.DesignNode]]] = {}
    layers = _without_carriers(nodes, fifos)
    try:
        elements = series_parallel(layers)
    except (TangledError, KeyError):
        return None
    drawing = _Drawing({node.name: node for node in nodes}, fifos)
    drawing.place(elements, 0, None)
    lines = drawing.lines
    slowest = max(lines, key=lambda line: line.cycles)
    held = [[one for ports in fifos[line.main.name] for one in ports] for line in lines]
    texts = [_text(line, line is slowest, one) for line, one in zip(lines, held, strict=True)]
    lanes = 1 + max(edge.lane for edge in drawing.edges)

    def draw(axes: Any) -> None:
        for edge in drawing.edges:
            ends = lines[edge.first].lane, lines[edge.last].lane
            across = [ends[0], edge.lane, edge.lane, ends[1]]
            down = [edge.first, edge.first + 0.5, edge.last - 0.5, edge.last]
            colour = COLOURS[2 if edge.lane else 1]
            axes.plot(across, down, color=colour, zorder=1)
            if edge.fifos:
                axes.plot([edge.lane], [edge.last - 0.5], "D", color=colour, markersize=8)
        for at, (line, text) in enumerate(zip(lines, texts, strict=True)):
            join = line.op in _WORDS
            style = "o" if join else "s"
            axes.plot([line.lane], [at], style, color=COLOURS[3 if join else 1], markersize=7)
            axes.text(lanes - 0.3, at, printable(text), va="center", fontsize=10)
        axes.set_xlim(-0.5, lanes + 9)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_axis_off()

    rows = [
        (line.main.name, _WORDS.get(line.op, line.op), f"{line.cycles:,.0f}", _held(one))
        for line, one in zip(lines, held, strict=True)
    ]
    return Chart(
        f"network-{number}",
        f"Network of {variant} in hardware",
        "From the image at the top to the last layer. " + "; ".join(texts) + ".",
        draw,
        ("Layer", "Kind", "Cycles per image", "FIFOs in front, beats (at least)"),
        rows,
        (5.2, _ROW * len(lines) + 0.3),
    )


def _without_carriers(
    nodes: Sequence[schema.DesignNode], fifos: dict[str, list[list[schema.DesignNode]]]
) -> list[LayerShape]:
    """The layers, reading each other; ``fifos`` gets those of shortcuts."""
    ports: dict[str, tuple[str, list[schema.DesignNode]]] = {INPUT: (INPUT, [])}
    layers, before = [], INPUT
    for node in nodes:
        read = [ports.get(name, ("", [])) for name in node.sources or [before]]
        if node.op in _CARRIERS:
            origin, held = read[0]
            ports[node.name] = origin, [*held, *([node] if node.least else [])]
        else:
            fifos[node.name] = [held for _, held in read]
            sources = tuple(origin for origin, _ in read)
            layers.append(LayerShape(name=node.name, kind=node.op, sources=sources))
            names = [node.name]
            if node.op == shapes.FORK:
                names += [f"{node.name}_{k}" for k in range(len(nodes))]
            ports.update((name, (name, [])) for name in names)
        before = node.name
    return layers


def _text(line: _Line, slowest: bool, fifos: Sequence[schema.DesignNode]) -> str:
    text = _WORDS.get(line.op, line.main.name)
    if fifos:
        return f"{text}, FIFO {_held(fifos)}"
    if line.op not in _WORDS:
        text += f", {line.cycles:,.0f} cycles" + (" (slowest)" if slowest else "")
    return text


def _held(fifos: Sequence[schema.DesignNode]) -> str:
    return ", ".join(f"{fifo.depth:,} (≥ {fifo.least:,})" for fifo in fifos if fifo.depth) or "–"
