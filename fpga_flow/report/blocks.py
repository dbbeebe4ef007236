"""Pieces that the page's sections share."""

from collections.abc import Iterable

from divqat_brevitas.extraction.evaluation.summary import Comparison
from fpga_flow.report.charts import Chart
from fpga_flow.report.markup import Markup, element, joined, number, table, text
from fpga_flow.report.text import bracketed, percent, points


def paragraph(sentence: str) -> Markup:
    """One sentence or more, escaped."""
    return element("p", sentence)


def note(sentence: str) -> Markup:
    """How to read what stands beside it, set smaller."""
    return element("p", sentence, class_="note")


def charts(found: Iterable[Chart | None]) -> Markup:
    """Charts side by side where there is room; nothing where there is none."""
    drawn = [
        element("figure", element("figcaption", chart.title), Markup(chart.svg), _numbers(chart))
        for chart in found
        if chart is not None
    ]
    return element("div", *drawn, class_="charts") if drawn else text("")


def _numbers(chart: Chart) -> Markup:
    """The numbers of a chart, for those who cannot see it and those who want them."""
    if chart.numbers is None:
        return text("")
    caption = f"{chart.title}: numbers"
    return folded("Numbers", table(caption, chart.numbers.head, chart.numbers.rows))


def folded(title: str, *content: Markup) -> Markup:
    """Content behind a title, opened by a click or a key."""
    return element("details", element("summary", title), *content)


def fraction(value: float | None) -> Markup:
    """A fraction of 1 in per cent, with its exact value."""
    return number(value, None if value is None else percent(value))


def decimal(value: float | None) -> Markup:
    """A number with three decimals, with its exact value."""
    return number(value, None if value is None else f"{value:.3f}")


def small(said: str) -> Markup:
    """A remark below a number of a table; nothing where there is none."""
    return element("span", said, class_="range") if said else text("")


def difference(found: Comparison | None, known: str = "") -> Markup:
    """The difference of two worst cases with its interval.

    What the interval is over is said where it is about the method, or other than ``known``.
    """
    paired = None if found is None else found.difference
    if found is None or paired is None:
        return text("baseline not attacked alike")
    return joined(
        (
            number(paired.mean, points(paired.mean)),
            small(bracketed(paired.interval) if paired.interval else ""),
            small(paired.over if paired.about_method or known not in ("", paired.over) else ""),
            small("attacks made on both" if found.missing else ""),
        )
    )
