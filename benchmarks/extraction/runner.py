"""Runs the benchmark's experiments: several at once, and on from there next time.

An experiment whose result is there with the same key is not run again. Results appear whole, so a
run killed at any moment has lost no more than the experiments it was in, and of a victim in
training no more than an epoch. Locks keep two runners from doing one thing twice.
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

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.records import ExperimentStore
from benchmarks.extraction.specs import ExperimentSpec
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
        results: folder of the committed experiments and victims.
        work: folder of finished experiments, victims, checkpoints, clones and locks.
        root: data folder; None: the cache.
        deadline: ``time.time()`` after which nothing new begins; None: never.
    """

    results: Path
    work: Path
    root: Path | None = None
    deadline: float | None = None

    @property
    def experiments(self) -> ExperimentStore:
        """The experiments that are there."""
        return ExperimentStore(self.results, self.work)

    def over(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.time() >= self.deadline


@dataclass(frozen=True)
class Outcome:
    """What became of an experiment; ``detail`` says it in words."""

    state: State
    detail: str
    seconds: float


@dataclass
class Summary:
    """What a run did.

    Attributes:
        done: experiments run now.
        there: experiments that were there before.
        left: experiments not run: no time, or another runner has them.
        failed: name of each experiment that failed, and why.
    """

    done: list[str] = field(default_factory=list)
    there: int = 0
    left: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def select(experiments: Sequence[ExperimentSpec], patterns: Sequence[str]) -> list[ExperimentSpec]:
    """The experiments whose name fits one of the patterns (as of a shell); all without a pattern.

    Raises:
        InputError: a pattern fits no experiment.
    """
    for pattern in patterns:
        if not any(_fits(experiment, pattern) for experiment in experiments):
            raise InputError(
                f"no experiment fits {pattern!r}. `divqat bench extraction --list` shows the "
                "names, and '*nasty*' is how a part of one is written."
            )
    return [
        experiment
        for experiment in experiments
        if not patterns or any(_fits(experiment, p) for p in patterns)
    ]


def _fits(experiment: ExperimentSpec, pattern: str) -> bool:
    return fnmatch.fnmatchcase(experiment.name, pattern)


def run(
    experiments: Sequence[ExperimentSpec], place: Place, *, jobs: int = 1, log: Log = print
) -> Summary:
    """Run every experiment that has no result yet, in order.

    Args:
        experiments: in the order they shall be run; those of a victim that another process trains
            just now wait while others can be run.
        place: where, and until when.
        jobs: processes, each with one thread.
        log: takes a line a finished experiment, with the time still to go.

    Raises:
        CheckFailedError: a worker process was killed.
    """
    summary = Summary()
    records = place.experiments
    waiting = [experiment for experiment in experiments if records.get(experiment) is None]
    summary.there = len(experiments) - len(waiting)
    store = VictimStore(place.work, place.root, kept=place.results)
    running: dict[Future[Outcome], ExperimentSpec] = {}
    start, planned = time.time(), len(waiting)
    with _workers(jobs) as pool:
        while waiting or running:
            while waiting and len(running) < jobs and not place.over():
                experiment = _next(waiting, list(running.values()), store)
                if experiment is None:
                    break
                waiting.remove(experiment)
                running[pool.submit(work, experiment, place)] = experiment
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                experiment = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool as e:
                    raise CheckFailedError(
                        f"a process of the benchmark was killed in {experiment.name} or beside it, "
                        "perhaps for lack of memory. What was finished is kept; run the same "
                        "command again, with fewer --jobs."
                    ) from e
                _note(summary, experiment, outcome)
                ready = len(summary.done) + len(summary.failed)
                rest = planned - ready
                pace = (time.time() - start) / max(1, ready)
                left = _eta(rest * pace)
                log(f"[{ready}/{planned}] {experiment.name}: {outcome.detail}, {left} to go")
    summary.left += [experiment.name for experiment in waiting]
    return summary


def work(experiment: ExperimentSpec, place: Place) -> Outcome:
    """Run one experiment in this process, unless another process runs it."""
    start = time.perf_counter()

    def outcome(state: State, detail: str) -> Outcome:
        return Outcome(state, detail, time.perf_counter() - start)

    store = _store(place)
    try:
        with locked(place.work / "locks" / f"experiment-{experiment.key[:16]}", wait=False):
            if place.experiments.get(experiment) is not None:
                return outcome("elsewhere", "already done by another runner")
            result = run_experiment(experiment, store, place.work / "clones")
            place.experiments.put(experiment, result)
    except LockedError:
        return outcome("elsewhere", "another runner is at it")
    except OutOfTimeError as e:
        return outcome("out of time", str(e))
    except Exception as e:
        # One experiment that cannot be run shall not cost the others a night.
        return outcome("failed", f"FAILED: {explain(e)[0]}")
    seconds = time.perf_counter() - start
    return outcome(
        "done",
        f"clone {result.clone_accuracy:.2%} of victim {result.victim_accuracy:.2%} "
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
    waiting: Sequence[ExperimentSpec], running: Sequence[ExperimentSpec], store: VictimStore
) -> ExperimentSpec | None:
    """The first experiment that need not wait for a victim in training."""
    training = {
        victim.key
        for experiment in running
        for victim in (experiment.victim, *experiment.victim.needs)
        if not store.ready(victim)
    }
    for experiment in waiting:
        wanted = {
            v.key for v in (experiment.victim, *experiment.victim.needs) if not store.ready(v)
        }
        if not wanted & training:
            return experiment
    return None


def _note(summary: Summary, experiment: ExperimentSpec, outcome: Outcome) -> None:
    match outcome.state:
        case "done":
            summary.done.append(experiment.name)
        case "failed":
            summary.failed[experiment.name] = outcome.detail.removeprefix("FAILED: ")
        case _:
            summary.left.append(experiment.name)


def _eta(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


class _Inline(Executor):
    """Runs submitted calls immediately, in this process."""

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
        os._exit(1)  # the parent was killed; an experiment half done is nothing

    threading.Thread(target=watch, daemon=True).start()
