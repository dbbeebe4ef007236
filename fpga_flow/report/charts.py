"""Charts: bars and lines as inline SVG that follows the page's theme, and as files.

Colour is never the only sign: every series also has its own marker, line style or hatch. Every
chart comes with its numbers, for those who cannot see it. Matplotlib is imported when one is drawn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from divqat_brevitas.errors import ToolMissingError
from fpga_flow.report import svg
from fpga_flow.report.runs import Spread
from fpga_flow.report.text import printable

MARKERS = "osD^vPX*<>p"  # not as many as colours, so that the pairs repeat late
_LINES = ("-", "--", "-.", ":")
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx")
_WIDTH, _HEIGHT = 5.2, 3.3  # inches at 72 units: read well at half a page and on a telephone
_NAME = 14  # letters of which three stand beside each other in a legend
_ROW = 0.2  # inches that a line of a legend takes
Draw = Callable[[Any, Mapping[str, str]], None]
"""Draws on matplotlib axes, with colours by the names of :data:`fpga_flow.report.svg.COLOURS`."""


@dataclass(frozen=True)
class Numbers:
    """What a chart draws, as a table: column names, and rows of as many texts."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Drawing:
    """How to draw a chart again, for a file."""

    draw: Draw
    size: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """One chart: what a page needs to place it, and what a file needs to draw it again."""

    name: str
    title: str
    svg: str
    numbers: Numbers | None = None
    drawing: Drawing | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Series:
    """Points of one line: x, the mean over seeds, and the seeds' spread where there are several."""

    label: str
    colour: int
    x: Sequence[float]
    spread: Sequence[Spread]


def chart(
    name: str,
    title: str,
    description: str,
    draw: Draw,
    numbers: Numbers | None = None,
    size: tuple[float, float] = (_WIDTH, _HEIGHT),
) -> Chart:
    """A chart that ``draw`` puts on the axes it is given, with the colours it is given.

    Raises:
        ToolMissingError: matplotlib is not installed.
    """
    drawing = Drawing(draw, size)
    with drawn(drawing, svg.COLOURS) as figure:
        return Chart(name, title, svg.inline(figure, name, title, description), numbers, drawing)


@contextmanager
def drawn(drawing: Drawing, colours: Mapping[str, str]) -> Iterator[Any]:
    """A chart's matplotlib figure in some colours, to be saved inside the block.

    Raises:
        ToolMissingError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ToolMissingError(
            "the report's charts need matplotlib, which is not installed. "
            "Install it with `pip install '.[report]'`."
        ) from e
    with rc_context(svg.style(colours)):
        figure = Figure(figsize=drawing.size, layout="constrained")
        drawing.draw(figure.add_subplot(), colours)
        yield figure


def bar_chart(
    name: str,
    title: str,
    description: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Spread | None]],
    unit: str,
    limits: tuple[float, float] | None = None,
    label_bars: bool = False,
    colours: Sequence[int] | None = None,
    longest: int = 14,
    stacked_legend: bool = False,
) -> Chart:
    """Grouped bars from zero; whiskers show the spread over seeds.

    ``colours`` numbers the series' colours as :class:`Series` does; without it they count from 1.
    Names of groups are cut to ``longest`` characters in the drawing, not in the table.
    ``stacked_legend``: one name a line, for long ones.
    """
    numbers = colours or range(1, len(series) + 1)

    names = [shortened(group, longest) for group in groups]

    def draw(axes: Any, ink: Mapping[str, str]) -> None:
        width = 0.8 / len(series)
        for index, (label, values) in enumerate(series.items()):
            found = [(at, value) for at, value in enumerate(values) if value is not None]
            at = [place + (index - (len(series) - 1) / 2) * width for place, _ in found]
            hatch = _HATCHES[index % len(_HATCHES)]
            bars = axes.bar(
                at,
                [value.mean for _, value in found],
                width * 0.92,
                label=label,
                facecolor=ink["surface" if hatch else f"series-{numbers[index] % 8}"],
                edgecolor=ink[f"series-{numbers[index] % 8}"],
                hatch=hatch,
                yerr=whiskers([value for _, value in found]),
                error_kw={"ecolor": ink["ink"], "capsize": 3, "elinewidth": 1.2},
            )
            if label_bars:
                axes.bar_label(bars, fmt="{:.1f}", fontsize=9, padding=2)
        crowded = len(groups) > 6 or any(len(name) > 12 for name in names)
        angle = 0 if not crowded else 40 if len(groups) <= 12 else 90
        axes.set_xticks(
            range(len(groups)),
            names,
            rotation=angle,
            ha="right" if angle else "center",
            va="center" if angle == 90 else "top",
            rotation_mode="anchor" if angle else None,
            fontsize=min(10.5, 260 / max(len(groups), 1)),
        )
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_ylabel(unit)
        axes.grid(axis="y")
        if limits:
            axes.set_ylim(*limits)
        if len(series) > 1 or stacked_legend:
            columns = 1 if stacked_legend else min(len(series), 3)
            axes.figure.legend(loc="outside upper left", ncols=columns)

    rows = [
        (group, *(said(values[at]) for values in series.values()))
        for at, group in enumerate(groups)
    ]
    return chart(
        name,
        title,
        description,
        draw,
        Numbers(("", *(_unit(label, unit) for label in series)), rows),
    )


def line_chart(
    name: str,
    title: str,
    description: str,
    lines: Sequence[Series],
    x_label: str,
    y_label: str,
    band: Spread | None = None,
    floor: float | None = None,
) -> Chart:
    """Lines with markers; whiskers show the spread over seeds.

    ``band`` is a range to compare with, ``floor`` what is reached without any query. Long names
    stand below each other, whole: cut off they would be alike.
    """
    stacked = any(len(line.label) > _NAME for line in lines)
    more = _ROW * (len(lines) + (band is not None) + (floor is not None) - 1) if stacked else 0.0

    def draw(axes: Any, ink: Mapping[str, str]) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        if band is not None:
            # Never thinner than can be seen.
            middle, half = (band.low + band.high) / 2, max((band.high - band.low) / 2, 0.15)
            axes.axhspan(
                middle - half,
                middle + half,
                facecolor=ink["grid"],
                label="victims themselves",
            )
        if floor is not None:
            axes.axhline(floor, color=ink["muted"], linestyle=":", label="chance")
        for line in lines:
            axes.errorbar(
                line.x,
                [value.mean for value in line.spread],
                yerr=whiskers(line.spread),
                label=shortened(line.label, 4 * _NAME),
                color=ink[f"series-{line.colour % 8}"],
                marker=MARKERS[line.colour % len(MARKERS)],
                linestyle=_LINES[line.colour % len(_LINES)],
                markersize=5.5 if len(line.x) < 20 else 3,
                linewidth=1.7,
                capsize=3,
            )
        budgets = sorted({x for line in lines for x in line.x})
        if len(budgets) <= 5:
            axes.set_xticks(budgets)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        if len(budgets) == 1:
            axes.set_xlim(budgets[0] - 1, budgets[0] + 1)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y")
        axes.figure.legend(loc="outside upper left", ncols=1 if stacked else 3)

    rows = [
        (
            f"{x:,.10g}",
            *(said(dict(zip(line.x, line.spread, strict=True)).get(x)) for line in lines),
        )
        for x in sorted({x for line in lines for x in line.x})
    ]
    head = (x_label, *(_unit(line.label, y_label) for line in lines))
    size = (_WIDTH, _HEIGHT + more)
    return chart(name, title, description, draw, Numbers(head, rows), size)


def said(spread: Spread | None) -> str:
    """A value of a chart in its table: ``97.3``, over seeds ``97.3 (96.9 to 97.6)``."""
    if spread is None:
        return "–"
    mean = f"{spread.mean:,.4g}" if spread.mean < 1000 else f"{spread.mean:,.0f}"
    several = len(spread.values) > 1
    return f"{mean} ({spread.low:,.4g} to {spread.high:,.4g})" if several else mean


def whiskers(values: Sequence[Spread]) -> list[list[float]] | None:
    """Lowest and highest value below and above each mean; None with one value each."""
    if all(len(value.values) < 2 for value in values):
        return None
    # The mean of equal values may lie an ulp outside of them.
    below = [max(value.mean - value.low, 0.0) for value in values]
    return [below, [max(value.high - value.mean, 0.0) for value in values]]


def shortened(text: str, length: int) -> str:
    """At most ``length`` characters; the end stays, where layers' names have their number."""
    text = printable(text)
    head = (length - 1) // 2
    return text if len(text) <= length else f"{text[:head]}…{text[-(length - 1 - head) :]}"


def _unit(label: str, unit: str) -> str:
    """A column's name; the unit is not said twice."""
    return label if label == unit else f"{label}, {unit}"
