"""Charts: bars and lines, each drawn once in colours that are seen on light and dark grounds.

Colour is never the only sign: every series also has its own marker, line style or hatch. Every
chart comes with its numbers, for those who cannot see it. The page's style sheet colours the text.
Matplotlib is imported when a chart is drawn.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.files import replacing
from fpga_flow.report.runs import Spread, printable

INK, LINE = "#1c2430", "#808a97"
"""Text in files, and axes, grids and whiskers."""
COLOURS = (
    "#7d8794", "#3f86d6", "#d4691a", "#0f9580", "#a95ca5", "#9a8014", "#cf5468", "#4a8c98",
)  # fmt: skip
"""Colours of series; each has a contrast of 3 or more with the light and the dark ground."""
MARKERS = "osD^vPX*<>p"  # not as many as colours, so that the pairs repeat late
_LINES = ("-", "--", "-.", ":")
_HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx")
_NAME = 14  # letters of which three stand beside each other in a legend
_ROW = 0.2  # inches that a line of a legend takes
_DPI = 200
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "divqat",  # the same chart is the same file
    "text.parse_math": False,  # a "$" in a name is a dollar
    "font.family": "DejaVu Sans",  # it comes with matplotlib; the page shows its own font
    "font.size": 10.5,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.prop_cycle": f"cycler('color', ['{LINE}'])",
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.alpha": 0.4,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "hatch.linewidth": 1.2,
}


@dataclass(frozen=True)
class Chart:
    """One chart."""

    name: str  # prefix of the ids in its SVG, and stem of its file
    title: str  # accessible name
    description: str  # what it shows, in words
    draw: Callable[[Any], None]  # draws it on matplotlib axes
    head: Sequence[str] = ()  # column names of its numbers
    rows: Sequence[Sequence[str]] = ()  # as many texts each; empty where it has no table
    # Inches, wide and high. The usual size is read well at half a page and on a telephone.
    size: tuple[float, float] = (5.2, 3.3)

    @property
    def svg(self) -> Markup:
        """The chart as one ``<svg>`` element, whose ids begin with the chart's name."""
        text = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with _figure([self], titles=False) as figure:
            figure.savefig(text, format="svg", metadata=metadata)
        attributes, _, content = text.getvalue().partition("<svg")[2].partition(">")
        content = re.sub("<style.*?</style>", "", content)  # it would hold for the whole page
        (box,) = re.findall(r'viewBox="([\d. ]+)"', attributes)
        ids = re.compile(r'\b(id="|href="#)|(url\(#)')
        content = re.sub(
            r"<[^>]+>",
            lambda tag: ids.sub(rf"\1\2{self.name}-", tag[0].replace("xlink:href", "href")),
            content,
        )
        return Markup(
            '<svg viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-desc" '
            'class="chart"><title id="{name}-title">{title}</title>'
            '<desc id="{name}-desc">{description}</desc>{content}'
        ).format(
            box=box,
            name=self.name,
            title=printable(self.title),
            description=printable(self.description),
            content=Markup(content.strip()),
        )


def save(charts: Sequence[Chart], path: Path) -> Path:
    """Write charts, one below the other under their titles, as SVG or PNG by the file's suffix."""
    kind = path.suffix[1:]
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with _figure(charts, titles=True) as figure, replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=_DPI, facecolor="white", metadata=metadata)
    return path


@contextmanager
def _figure(charts: Sequence[Chart], titles: bool) -> Iterator[Any]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ToolMissingError(
            "the report's charts need matplotlib, which is not installed. "
            "Install it with `pip install '.[report]'`."
        ) from e
    widths, heights = zip(*(chart.size for chart in charts), strict=True)
    with rc_context(_STYLE):
        figure = Figure(figsize=(max(widths), sum(heights)), layout="constrained")
        parts = figure.subfigures(len(charts), 1, height_ratios=heights, squeeze=False)
        for chart, part in zip(charts, parts.flat, strict=True):
            if titles:
                part.suptitle(printable(chart.title), x=0.01, ha="left", fontsize=11)
            chart.draw(part.add_subplot())
        yield figure


@dataclass(frozen=True)
class Series:
    """Points of one line: x, the mean over seeds, and the seeds' spread where there are several."""

    label: str
    colour: int
    x: Sequence[float]
    spread: Sequence[Spread]


def bar_chart(
    name: str,
    title: str,
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

    def draw(axes: Any) -> None:
        width = 0.8 / len(series)
        for index, (label, values) in enumerate(series.items()):
            bars = [(at, value) for at, value in enumerate(values) if value is not None]
            colour, hatch = COLOURS[numbers[index] % 8], _HATCHES[index % len(_HATCHES)]
            drawn = axes.bar(
                [place + (index - (len(series) - 1) / 2) * width for place, _ in bars],
                [value.mean for _, value in bars],
                width * 0.92,
                label=printable(label),
                facecolor="none" if hatch else colour,
                edgecolor=colour,
                hatch=hatch,
                yerr=whiskers([value for _, value in bars]),
                error_kw={"ecolor": LINE, "capsize": 3, "elinewidth": 1.2},
            )
            if label_bars:
                axes.bar_label(drawn, fmt="{:.1f}", fontsize=9, padding=2)
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

    head = ["", *(_unit(label, unit) for label in series)]
    rows = [
        [group, *(shown(values[at]) for values in series.values())]
        for at, group in enumerate(groups)
    ]
    return Chart(name, title, _description(unit, head, rows), draw, head, rows)


def line_chart(
    name: str,
    title: str,
    lines: Sequence[Series],
    x_label: str,
    y_label: str,
    band: Spread | None = None,
    chance: float | None = None,
) -> Chart:
    """Lines with markers; whiskers show the spread over seeds.

    ``band`` is a range to compare with, ``chance`` what is reached without any query. Long names
    stand below each other, whole: cut off they would be alike.
    """
    stacked = any(len(line.label) > _NAME for line in lines)
    more = _ROW * (len(lines) + (band is not None) + (chance is not None) - 1) if stacked else 0.0
    places = sorted({x for line in lines for x in line.x})

    def draw(axes: Any) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        if band is not None:
            # Never thinner than can be seen.
            middle, half = (band.low + band.high) / 2, max((band.high - band.low) / 2, 0.15)
            ends = middle - half, middle + half
            axes.axhspan(*ends, facecolor=LINE, alpha=0.35, label="victims themselves")
        if chance is not None:
            axes.axhline(chance, color=LINE, linestyle=":", label="chance")
        for line in lines:
            axes.errorbar(
                line.x,
                [value.mean for value in line.spread],
                yerr=whiskers(line.spread),
                label=shortened(line.label, 4 * _NAME),
                color=COLOURS[line.colour % 8],
                marker=MARKERS[line.colour % len(MARKERS)],
                linestyle=_LINES[line.colour % len(_LINES)],
                markersize=5.5 if len(line.x) < 20 else 3,
                linewidth=1.7,
                capsize=3,
            )
        if len(places) <= 5:
            axes.set_xticks(places)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        if len(places) == 1:
            axes.set_xlim(places[0] - 1, places[0] + 1)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y")
        axes.figure.legend(loc="outside upper left", ncols=1 if stacked else 3)

    values = [dict(zip(line.x, line.spread, strict=True)) for line in lines]
    head = [x_label, *(_unit(line.label, y_label) for line in lines)]
    rows = [[f"{x:,.10g}", *(shown(value.get(x)) for value in values)] for x in places]
    size = (5.2, 3.3 + more)
    return Chart(name, title, _description(y_label, head, rows[-1:]), draw, head, rows, size)


def shown(spread: Spread | None) -> str:
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
    """A column's name; the unit is not repeated."""
    return label if label == unit else f"{label}, {unit}"


def _description(unit: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    parts = (
        f"{row[0]}: "
        + ", ".join(f"{name} {value}" for name, value in zip(head[1:], row[1:], strict=True))
        for row in rows
    )
    return f"{unit}, by {head[0] or 'name'}. {'; '.join(parts)}."
