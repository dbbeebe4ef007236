"""The report's charts of the benchmark as files: frontiers and curves, one file a data set."""

from pathlib import Path

from divqat_brevitas.files import write_text
from fpga_flow.report.figure_files import sheet
from fpga_flow.report.frontier import budget_curves, frontiers
from fpga_flow.report.schema import Results


def write_plots(found: dict[str, Results], folder: Path) -> list[Path]:
    """Write ``frontier-<name>.svg`` and ``budget-<name>.svg`` of each results; returns the files.

    Raises:
        ToolMissingError: matplotlib is not installed.
    """
    paths = []
    for name, results in found.items():
        for kind, charts in (("frontier", frontiers(results)), ("budget", budget_curves(results))):
            path = folder / f"{kind}-{name}.svg"
            if charts:
                paths.append(path)
                write_text(path, sheet(charts))
            else:
                path.unlink(missing_ok=True)  # of results that had one
    return paths
