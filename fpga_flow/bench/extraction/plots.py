"""The report's charts as files of their own: SVG with text, in light or dark as the reader's page.

The drawings are the report's; here they get the namespace and the colours that its page gives
them there.
"""

import re
from importlib.resources import files
from pathlib import Path

from divqat_brevitas.files import write_text
from fpga_flow.report.charts import Chart
from fpga_flow.report.frontier import budget_curves, frontiers
from fpga_flow.report.schema import Results
from fpga_flow.report.text import printable

_GAP = 24.0
_TITLE = 22.0


def write_plots(found: dict[str, Results], folder: Path) -> list[Path]:
    """Write ``frontier-<name>.svg`` and ``budget-<name>.svg`` of each results; returns the files.

    Raises:
        ToolMissingError: matplotlib is not installed.
    """
    paths = []
    for name, results in found.items():
        for kind, charts in (("frontier", frontiers(results)), ("budget", budget_curves(results))):
            if charts:
                paths.append(folder / f"{kind}-{name}.svg")
                write_text(paths[-1], sheet(charts))
    return paths


def sheet(charts: list[Chart]) -> str:
    """Charts one below the other, each under its title, as one SVG document.

    Example:
        >>> sheet([Chart("a", "A", '<svg viewBox="0 0 10 10" class="chart"/>')]).count("<svg")
        2
    """
    parts, top, width = [], 0.0, 0.0
    for chart in charts:
        _, _, wide, high = map(float, _view_box(chart.svg))
        parts.append(f'<text x="4" y="{top + 15:g}" class="title">{_escaped(chart.title)}</text>')
        placed = f'<svg x="0" y="{top + _TITLE:g}" width="{wide:g}" height="{high:g}" '
        parts.append(chart.svg.replace("<svg ", placed, 1))
        top += _TITLE + high + _GAP
        width = max(width, wide)
    style = (
        f"{_variables()}\n"
        "text { font-family: system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }\n"
        ".title { fill: var(--ink); font-size: 13px; font-weight: 600; }"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" '
        f'width="{width:g}" height="{top:g}">\n<style>\n{style}\n</style>\n'
        f'<rect width="100%" height="100%" fill="var(--surface)"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _variables() -> str:
    """The colours at the head of the report's style sheet, for both themes."""
    css = (files("fpga_flow.report") / "page.css").read_text(encoding="utf-8")
    return css.partition("* {")[0].strip()


def _view_box(drawing: str) -> list[str]:
    match = re.search(r'viewBox="([^"]+)"', drawing)
    assert match is not None  # svg.inline writes one
    return match[1].split()


def _escaped(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;")
