"""Everything that is made from the cells, in one go: page, results, plots, the README's block."""

from collections.abc import Sequence
from pathlib import Path

from divqat_brevitas.files import write_text
from fpga_flow.bench.extraction.collect import (
    documents,
    keep_victims,
    read_cells,
    read_victims,
    write_documents,
)
from fpga_flow.bench.extraction.plots import write_plots
from fpga_flow.bench.extraction.specs import CellSpec
from fpga_flow.bench.extraction.tables import block, page
from fpga_flow.bench.marks import rewrite_block


def publish(
    folder: Path,
    work: Path | None = None,
    readme: Path | None = None,
    planned: Sequence[CellSpec] | None = None,
) -> list[Path]:
    """Write ``README.md``, ``results-<dataset>.json`` and plots beside the cells.

    Args:
        folder: of results, with ``cells/``.
        work: the benchmark's work folder; the attacked victims' records are copied from it to
            ``victims/`` first.
        readme: a page whose marked block is rewritten too.
        planned: see :func:`fpga_flow.bench.extraction.tables.page`; cells that it no longer
            describes are left out.

    Returns:
        The files written.

    Raises:
        InputError: no cells, a damaged one, or a page without marks.
        ToolMissingError: matplotlib is not installed.

    Example:
        >>> from fpga_flow.bench.extraction.plan import plan
        >>> publish(Path("benchmarks/extraction"), planned=plan("compact"))  # doctest: +SKIP
    """
    if work is not None:
        keep_victims(folder, work)
    found = documents(read_cells(folder, planned), read_victims(folder))
    write_text(folder / "README.md", page(found, planned))
    if readme is not None:
        rewrite_block(readme, "extraction", block(found))
    written = [folder / "README.md", *([] if readme is None else [readme])]
    return [*written, *write_documents(found, folder), *write_plots(found, folder)]
