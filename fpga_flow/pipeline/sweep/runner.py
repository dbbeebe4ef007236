"""Runs a sweep's cells: in processes here, or on a Dask cluster. One loop serves both.

Both are executors of `concurrent.futures`: threads here that wait for a cell's process each, or
those of Dask's workers. Finished cells are not run again, wherever they were finished; a cell
whose worker is lost is given to another one, which takes up what the first had finished of it.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.errors import RunLockedError
from fpga_flow.pipeline.locks import LockedError, locked
from fpga_flow.pipeline.sweep.cell import SWEEP_LOCK, Outcome, Task, cell_folder, finished
from fpga_flow.pipeline.sweep.launch import launch
from fpga_flow.pipeline.sweep.plan import Cell

Log = Callable[[str], None]
Submit = Callable[[Task], Future[Outcome]]
_CONNECT_SECONDS = 20


@dataclass
class Summary(ShortRepr):
    """What a call of `run` did.

    Attributes:
        done: names of the cells finished now.
        there: how many were finished before.
        left: cells not run: the cluster went away.
        missing: cells of which a stage lacked a tool, and which.
        failed: cells that failed, and why.
    """

    done: list[str] = field(default_factory=list)
    there: int = 0
    left: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, str]:
        """What became of the cells that are not done, by name."""
        return dict.fromkeys(self.failed, "failed") | dict.fromkeys(self.left, "left")


def run(
    cells: Sequence[Cell],
    out: Path,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    log: Log = print,
) -> Summary:
    """Run every cell that is not finished.

    Args:
        cells: of `fpga_flow.pipeline.sweep.plan.read_sweep`.
        out: the sweep's folder; with ``cluster``, one that all its workers see.
        workers: processes at once; None: as many as the cores allow.
        cluster: address of a Dask scheduler, such as ``tcp://host:8786``; its workers decide how
            many cells run at once.
        log: takes a line a cell.

    Raises:
        InputError: too many workers for the machine, no scheduler at the address, or another
            process works in the folder.
        ToolMissingError: ``cluster`` without the package ``distributed``.
        KeyboardInterrupt: what was finished is kept. Processes here have ended; cells that a
            cluster has begun go on to their end.

    Example:
        >>> summary = run(read_sweep(Path("sweep.toml")), Path("runs/sweep"))  # doctest: +SKIP
        >>> summary.failed  # doctest: +SKIP
        {}
    """
    summary = Summary()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / SWEEP_LOCK, wait=False):
            waiting = [cell for cell in cells if not finished(cell_folder(out, cell), cell.key)]
            summary.there = len(cells) - len(waiting)
            if waiting:
                with _submitter(waiting, workers, cluster, log) as submit:
                    _run(waiting, out, submit, summary, log)
    except LockedError as e:
        raise RunLockedError(
            f"another divqat sweep works in {out}. Wait for it, or choose another --out."
        ) from e
    return summary


def _run(cells: Sequence[Cell], out: Path, submit: Submit, summary: Summary, log: Log) -> None:
    begun = time.monotonic()
    futures = {submit(Task.of(cell, out)): cell for cell in cells}
    for number, future in enumerate(as_completed(futures), start=1):
        cell = futures[future]
        try:
            outcome = future.result()
        except CancelledError:
            summary.left.append(cell.name)
            continue
        except Exception as e:
            # The launcher itself raises nothing: it is the cluster that gave the cell up.
            outcome = Outcome("failed", f"the cluster gave it up: {type(e).__name__}: {e}")
        pace = (time.monotonic() - begun) / number
        _note(summary, cell, outcome)
        rest = (len(cells) - number) * pace
        log(f"[{number}/{len(cells)}] {cell.name}: {_words(outcome)}, {_span(rest)} to go")


def _note(summary: Summary, cell: Cell, outcome: Outcome) -> None:
    match outcome.state:
        case "done":
            summary.done.append(cell.name)
        case "there":
            summary.there += 1
        case "missing-tool":
            summary.missing[cell.name] = outcome.detail
        case "interrupted":
            summary.left.append(cell.name)
        case "failed":
            summary.failed[cell.name] = outcome.detail


def _words(outcome: Outcome) -> str:
    match outcome.state:
        case "done":
            shown = ", ".join(
                f"{name.removeprefix('accuracy.')} {value:.1%}"
                for name, value in outcome.figures.items()
                if name.startswith("accuracy.")
            )
            return f"{shown} in {_span(outcome.seconds)}"
        case "there":
            return "finished before"
        case _:
            return f"{outcome.state}: {outcome.detail}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def _submitter(
    cells: Sequence[Cell], workers: int | None, cluster: str | None, log: Log
) -> Iterator[Submit]:
    """What starts a cell somewhere; an exception in the block drops the cells that wait."""
    if cluster is not None:
        with _dask(cluster, log) as executor:
            yield lambda task: executor.submit(launch, task)
        return
    count, threads = share(cells, workers)
    log(f"{len(cells)} cells in {count} processes, {threads} threads each")
    stop = threading.Event()
    with ThreadPoolExecutor(count) as pool:
        try:
            yield lambda task: pool.submit(launch, task, threads, stop)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def share(
    cells: Sequence[Cell], workers: int | None = None, cores: int | None = None
) -> tuple[int, int]:
    """How many processes run at once, and how many threads each has.

    Args:
        cells: their ``run.threads`` counts, where it is set.
        workers: as asked for; None: as many as the cores allow.
        cores: None: those this process may use.

    Raises:
        InputError: more threads than cores.

    Example:
        >>> share([], workers=3, cores=8)
        (3, 2)
    """
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    wanted = max((cell.config.run.threads or 1 for cell in cells), default=1)
    if wanted > cores:
        raise InputError(f"run.threads = {wanted} is more than this machine's {cores} cores.")
    count = min(max(1, len(cells)), cores // wanted) if workers is None else workers
    if count * wanted > cores:
        raise InputError(
            f"{count} workers of {wanted} threads are more than this machine's {cores} cores: "
            f"--workers {cores // wanted} at most."
        )
    return count, cores // count


@contextmanager
def _dask(address: str, log: Log) -> Iterator[Executor]:
    """Dask's own executor on a running scheduler."""
    try:
        from distributed import Client
    except ModuleNotFoundError as e:
        raise ToolMissingError(
            "--cluster needs Dask: `pip install '.[sweep]'`, here and where the workers run."
        ) from e
    try:
        client: Any = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as e:
        raise InputError(
            f"no Dask scheduler answers at {address} ({e}). Start one with `dask scheduler`, and "
            "`dask worker ADDRESS --nworkers N --nthreads 1` where the cells shall run."
        ) from e
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        slots = sum(worker["nthreads"] for worker in workers)
        log(f"{len(workers)} workers at {address} run {slots} cells at once (none: it waits)")
        # A cell is no pure function: equal ones shall not be answered from the cluster's memory.
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)
