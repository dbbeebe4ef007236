"""Everything that is made from the cells, in one go: page, results, plots, the README's block."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.extraction.collect import (
    documents,
    keep_victims,
    read_cells,
    read_victims,
    write_documents,
)
from benchmarks.extraction.plots import write_plots
from benchmarks.extraction.specs import CellSpec
from benchmarks.extraction.tables import block, page
from benchmarks.marks import rewrite_block
from divqat_brevitas.files import write_text


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
        planned: see :func:`benchmarks.extraction.tables.page`; cells that it no longer
            describes are left out.

    Returns:
        The files written.

    Raises:
        InputError: no cells, a damaged one, or a page without marks.
        ToolMissingError: matplotlib is not installed.

    Example:
        >>> from benchmarks.extraction.plan import plan
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
