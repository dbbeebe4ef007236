"""Runs the benchmark's cells: several at once, for so many minutes, and on from there next time.

A cell whose result is there with the same key is not run again. Results appear whole, so a run
killed at any moment has lost no more than the cells it was in, and of a victim in training no more
than an epoch. Locks keep two runners from doing one thing twice.
"""

import fnmatch
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from benchmarks.extraction.cells import read_cell, run_cell, write_cell
from benchmarks.extraction.specs import CellSpec
from benchmarks.extraction.victims import OutOfTimeError, VictimStore
from divqat_brevitas.errors import CheckFailedError, InputError
from fpga_flow.errors import explain
from fpga_flow.pipeline.locks import LockedError, locked

State = Literal["done", "elsewhere", "out of time", "failed"]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a benchmark runs.

    Attributes:
        results: folder with the cells' JSON in ``cells/``.
        work: folder of victims, checkpoints, clones and locks.
        root: data folder; None: the cache.
        deadline: ``time.time()`` after which nothing new begins; None: never.
    """

    results: Path
    work: Path
    root: Path | None = None
    deadline: float | None = None

    def over(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.time() >= self.deadline


@dataclass(frozen=True)
class Outcome:
    """What became of a cell; ``detail`` says it in words."""

    state: State
    detail: str
    seconds: float


@dataclass
class Summary:
    """What a run did.

    Attributes:
        done: cells run now.
        there: cells that were there before.
        left: cells not run: no time, or another runner has them.
        failed: name of each cell that failed, and why.
    """

    done: list[str] = field(default_factory=list)
    there: int = 0
    left: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def select(cells: Sequence[CellSpec], patterns: Sequence[str]) -> list[CellSpec]:
    """The cells whose name fits one of the patterns (as of a shell); all without a pattern.

    Raises:
        InputError: a pattern fits no cell.
    """
    for pattern in patterns:
        if not any(_fits(cell, pattern) for cell in cells):
            raise InputError(
                f"no cell fits {pattern!r}. `divqat bench extraction --list` shows the names, and "
                "'*nasty*' is how a part of one is written."
            )
    return [cell for cell in cells if not patterns or any(_fits(cell, p) for p in patterns)]


def _fits(cell: CellSpec, pattern: str) -> bool:
    return fnmatch.fnmatchcase(cell.name, pattern)


def run(cells: Sequence[CellSpec], place: Place, *, jobs: int = 1, log: Log = print) -> Summary:
    """Run every cell that has no result yet, in order.

    Args:
        cells: in the order they shall be run; those of a victim that another process trains just
            now wait while others can be run.
        place: where, and until when.
        jobs: processes, each with one thread.
        log: takes a line a finished cell, with the time still to go.

    Raises:
        CheckFailedError: a worker process was killed.
    """
    summary = Summary()
    waiting = [cell for cell in cells if read_cell(place.results, cell) is None]
    summary.there = len(cells) - len(waiting)
    store = VictimStore(place.work, place.root, kept=place.results)
    running: dict[Future[Outcome], CellSpec] = {}
    start, planned = time.time(), len(waiting)
    with _workers(jobs) as pool:
        while waiting or running:
            while waiting and len(running) < jobs and not place.over():
                cell = _next(waiting, list(running.values()), store)
                if cell is None:
                    break
                waiting.remove(cell)
                running[pool.submit(work, cell, place)] = cell
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                cell = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool as e:
                    raise CheckFailedError(
                        f"a process of the benchmark was killed in {cell.name} or beside it, "
                        "perhaps for lack of memory. What was finished is kept; run the same "
                        "command again, with fewer --jobs."
                    ) from e
                _note(summary, cell, outcome)
                ready = len(summary.done) + len(summary.failed)
                rest = planned - ready
                pace = (time.time() - start) / max(1, ready)
                log(f"[{ready}/{planned}] {cell.name}: {outcome.detail}, {_eta(rest * pace)} to go")
    summary.left += [cell.name for cell in waiting]
    return summary


def work(cell: CellSpec, place: Place) -> Outcome:
    """Run one cell in this process, unless another has it."""
    start = time.perf_counter()

    def outcome(state: State, detail: str) -> Outcome:
        return Outcome(state, detail, time.perf_counter() - start)

    store = _store(place)
    try:
        with locked(place.work / "locks" / f"cell-{cell.key[:16]}", wait=False):
            if read_cell(place.results, cell) is not None:
                return outcome("elsewhere", "already done by another runner")
            result = run_cell(cell, store, place.work / "clones")
            write_cell(place.results, cell, result)
    except LockedError:
        return outcome("elsewhere", "another runner is at it")
    except OutOfTimeError as e:
        return outcome("out of time", str(e))
    except Exception as e:
        # One cell that cannot be run shall not cost the others a night.
        return outcome("failed", f"FAILED: {explain(e)[0]}")
    seconds = time.perf_counter() - start
    return outcome(
        "done",
        f"clone {result['clone_accuracy']:.2%} of victim {result['victim_accuracy']:.2%} "
        f"in {seconds:.0f} s",
    )


_stores: dict[Place, VictimStore] = {}


def _store(place: Place) -> VictimStore:
    """One store a process: it keeps the last victim loaded."""
    if place not in _stores:
        _stores.clear()
        _stores[place] = VictimStore(
            place.work,
            place.root,
            log=lambda line: print(line, file=sys.stderr, flush=True),
            out_of_time=place.over,
            kept=place.results,
        )
    return _stores[place]


def _next(
    waiting: Sequence[CellSpec], running: Sequence[CellSpec], store: VictimStore
) -> CellSpec | None:
    """The first cell that need not wait for a victim that a running cell is training."""
    training = {
        victim.key
        for cell in running
        for victim in (cell.victim, *cell.victim.needs)
        if not store.ready(victim)
    }
    for cell in waiting:
        wanted = {v.key for v in (cell.victim, *cell.victim.needs) if not store.ready(v)}
        if not wanted & training:
            return cell
    return None


def _note(summary: Summary, cell: CellSpec, outcome: Outcome) -> None:
    match outcome.state:
        case "done":
            summary.done.append(cell.name)
        case "failed":
            summary.failed[cell.name] = outcome.detail.removeprefix("FAILED: ")
        case _:
            summary.left.append(cell.name)


def _eta(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


class _Inline(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[Outcome] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _workers(jobs: int) -> Iterator[Executor]:
    """Processes of one thread each; none for one job."""
    if jobs == 1:
        with one_thread():
            yield _Inline()
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the children when they start
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    )
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.kill()  # nothing is lost: results appear whole
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextmanager
def one_thread() -> Iterator[None]:
    """As a worker has it: results are equal to the last bit for equal numbers of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _begin(parent: int) -> None:
    """A worker's first act: one thread, and an end with its parent."""
    import torch

    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # the parent was killed; a cell half done is nothing

    threading.Thread(target=watch, daemon=True).start()
