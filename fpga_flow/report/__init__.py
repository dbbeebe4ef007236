"""Results and page: what a run measured, as ``report/results.json`` and ``report/index.html``."""

from pathlib import Path

from fpga_flow.report.comparison_page import comparison_text, write_comparison
from fpga_flow.report.figure_files import write_figures
from fpga_flow.report.page import write_page
from fpga_flow.report.results import collect, read, validate, write
from fpga_flow.report.schema import Results
from fpga_flow.report.words import summary_text

__all__ = [
    "Results",
    "build_report",
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
    """Write ``report/results.json`` and ``report/index.html`` of a run directory.

    The numbers are written first: they stay where the page cannot be drawn.

    Args:
        run_dir: a run directory in which at least ``train`` is done.

    Raises:
        InputError: nothing to report yet, or a stage's file is damaged (named).
        ToolMissingError: matplotlib is not installed.

    Example:
        >>> results = build_report(Path("runs/demo"))  # doctest: +SKIP
        >>> print(summary_text(results, Path("runs/demo/report/index.html")))  # doctest: +SKIP
    """
    results = collect(run_dir)
    folder = Path(run_dir) / "report"
    write(results, folder / "results.json")
    write_page(results, folder / "index.html")
    return results
