"""`divqat sweep` as a function: the pipeline once for every point of a grid of settings."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.pipeline.sweep.figures import rows, write_table
from fpga_flow.pipeline.sweep.grid import check, read_sweep
from fpga_flow.pipeline.sweep.run import finished, folder_of
from fpga_flow.pipeline.sweep.run import run as run_tasks
from fpga_flow.pipeline.tasks import Log, Summary


@dataclass(frozen=True)
class Sweep(ShortRepr):
    """What became of a sweep.

    Attributes:
        out: its folder; each task is a run directory in it.
        rows: one a task: its name, state, settings and key figures, as in ``summary.json``.
        summary: names of the tasks that ran, failed or are left, with the reasons.
    """

    out: Path
    rows: list[dict[str, Any]]
    summary: Summary


def sweep(
    grid: Path | str,
    *,
    out: Path | str,
    workers: int | None = None,
    cluster: str | None = None,
    listing: bool = False,
    log: Log = print,
) -> Sweep:
    """Run the pipeline once for every task of a grid: `divqat sweep` as a function.

    A finished task is not run again. ``summary.csv`` and ``summary.json`` in the folder hold the
    key figures.

    Args:
        grid: a TOML file with the tables [base], [grid] and [[task]], as
            `divqat sweep --help` shows them.
        out: folder of the runs; with ``cluster``, one that all workers share.
        workers: processes here; None: as many as the cores allow.
        cluster: address of a Dask scheduler, whose workers run the tasks.
        listing: only list the tasks and their states.
        log: takes a line a task.

    Raises:
        InputError: no such file, an unknown setting, ``workers`` together with ``cluster``, or
            another sweep works in the folder.
        ToolMissingError: ``cluster`` without the package ``distributed``.

    Example:
        >>> listed = sweep("sweep.toml", out="runs/sweep", listing=True)
        >>> [row["state"] for row in listed.rows]
        ['left', 'left']
    """
    if workers is not None and cluster is not None:
        raise InputError("--workers is for this machine; a cluster's workers are its own.")
    tasks, out = read_sweep(Path(grid)), Path(out)
    if listing:
        return Sweep(out, rows(tasks, out, {}), Summary())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries warn of is for developers
        check([task for task in tasks if not finished(folder_of(out, task), task.key)])
    summary = run_tasks(tasks, out, workers=workers, cluster=cluster, log=log)
    table = rows(tasks, out, summary.states)
    write_table(table, out)
    return Sweep(out, table, summary)
