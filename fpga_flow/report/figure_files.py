"""The report's charts as files of their own, for papers and slides.

SVG with text, in light or dark as the reader's program is; PNG in the light colours.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from divqat_brevitas.files import replacing, write_text
from fpga_flow.report.charts import Chart, drawn
from fpga_flow.report.figures import clone_curves, training_curves, victim_accuracy
from fpga_flow.report.frontier import budget_curves, frontiers, pool_bars
from fpga_flow.report.hardware_figures import (
    cell_charts,
    device_share,
    hardware_charts,
    layer_charts,
)
from fpga_flow.report.runs import in_order
from fpga_flow.report.schema import Results
from fpga_flow.report.text import printable
from fpga_flow.report.theme import palette, variables

_DPI = 200
_GAP = 24.0
_TITLE = 22.0


def gallery(results: Results) -> list[Chart]:
    """Every chart that the results give.

    Raises:
        ToolMissingError: matplotlib is not installed.
    """
    found = [victim_accuracy(results), *frontiers(results), *budget_curves(results)]
    found += [*clone_curves(results), pool_bars(results), *training_curves(results)]
    found.append(device_share(results))
    for number, variant in enumerate(in_order(results, results.layers)):
        found += layer_charts(variant, number, results.layers[variant])
    for number, variant in enumerate(in_order(results, results.estimates)):
        found += hardware_charts(variant, number, results.estimates[variant])
    for number, variant in enumerate(in_order(results, results.cells)):
        found += cell_charts(variant, number, results.cells[variant])
    return [chart for chart in found if chart is not None]


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Write every chart as ``<name>.svg`` and ``<name>.png``, in place of what is in ``folder``.

    Raises:
        InputError: the folder cannot be written.
        ToolMissingError: matplotlib is not installed.

    Example:
        >>> from fpga_flow.report import read
        >>> write_figures(read(Path("runs/demo/report/results.json")), Path("figures"))
        ... # doctest: +SKIP
    """
    charts = gallery(results)
    shutil.rmtree(folder, ignore_errors=True)
    paths = []
    for chart in charts:
        paths.append(folder / f"{chart.name}.svg")
        write_text(paths[-1], sheet([chart]))
        if chart.drawing is not None:
            paths.append(folder / f"{chart.name}.png")
            with drawn(chart.drawing, palette()) as figure, replacing(paths[-1]) as temporary:
                figure.suptitle(printable(chart.title), x=0.01, ha="left", fontsize=11)
                surface = palette()["surface"]
                figure.savefig(temporary, dpi=_DPI, facecolor=surface, metadata={"Software": None})
    return paths


def sheet(charts: Sequence[Chart]) -> str:
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
        f"{variables()}\n"
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


def _view_box(drawing: str) -> list[str]:
    match = re.search(r'viewBox="([^"]+)"', drawing)
    assert match is not None  # svg.inline writes one
    return match[1].split()


def _escaped(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;")
