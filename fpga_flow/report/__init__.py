"""Results and page: what a run measured, as ``report/results.json`` and ``report/index.html``."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from divqat_brevitas.files import write_json, write_text
from fpga_flow.report.charts import save
from fpga_flow.report.claims import claims_text
from fpga_flow.report.collection import collect, read, write
from fpga_flow.report.comparison import Group, comparison_text, document, groups, load_runs
from fpga_flow.report.page import comparison_page, page
from fpga_flow.report.run_charts import gallery
from fpga_flow.report.schema import Results, validate
from fpga_flow.report.summary import summary_text

__all__ = [
    "Results",
    "build_report",
    "claims_text",
    "collect",
    "comparison_text",
    "read",
    "summary_text",
    "validate",
    "write",
    "write_comparison",
    "write_figures",
]


def build_report(run_dir: Path) -> Results:
    """Write ``report/results.json``, then ``index.html``, of a run in which ``train`` is done.

    Raises:
        InputError: nothing to report yet, or a stage's file is damaged (named).
        ToolMissingError: matplotlib is not installed; the numbers are written all the same.

    Example:
        >>> results = build_report(Path("runs/demo"))  # doctest: +SKIP
    """
    results = collect(run_dir)
    folder = Path(run_dir) / "report"
    write(results, folder / "results.json")
    write_text(folder / "index.html", page(results))
    return results


def write_comparison(paths: Sequence[Path], folder: Path) -> list[Group]:
    """Compare runs: ``comparison.json`` and ``index.html`` in ``folder``, which is made.

    Args:
        paths: run directories with a report, results files, or benchmark folders.
        folder: gets both files.

    Raises:
        InputError: no results at a path, one named twice, or the folder cannot be written.
        ToolMissingError: matplotlib is not installed.

    Example:
        >>> write_comparison([Path("a"), Path("b")], Path("a-b"))  # doctest: +SKIP
    """
    compared = groups(load_runs(paths))
    write_json(folder / "comparison.json", document(compared))
    write_text(folder / "index.html", comparison_page(compared))
    return compared


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Write every chart as ``<name>.svg`` and ``<name>.png``, in place of what is in ``folder``.

    Raises:
        InputError: the folder cannot be written.
        ToolMissingError: matplotlib is not installed.
    """
    charts = gallery(results)
    shutil.rmtree(folder, ignore_errors=True)
    return [
        save([chart], folder / f"{chart.name}.{kind}")
        for chart in charts
        for kind in ("svg", "png")
    ]
