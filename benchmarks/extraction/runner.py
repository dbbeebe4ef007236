"""Runs the benchmark's experiments: several at once, and on from there next time.

An experiment whose result is there with the same key is not run again. Results appear whole, so a
run killed at any moment has lost no more than the experiments it was in, and of a victim in
training no more than an epoch. Locks keep two runners from doing one thing twice.
"""

import fnmatch
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.records import ExperimentStore
from benchmarks.extraction.specs import ExperimentSpec
from benchmarks.extraction.victims import OutOfTimeError, VictimStore
from divqat_brevitas.errors import InputError
from fpga_flow.pipeline.task_process import here, processes
from fpga_flow.pipeline.tasks import Log, Outcome, Summary, Task, locked, run_tasks


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


_EXPERIMENT = TypeAdapter(ExperimentSpec)
_PLACE = TypeAdapter(Place)


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
    """
    summary = Summary()
    records = place.experiments
    waiting = [experiment for experiment in experiments if records.get(experiment) is None]
    summary.there = len(experiments) - len(waiting)
    store = VictimStore(place.work, place.root, kept=place.results)
    by_name = {experiment.name: experiment for experiment in waiting}

    def choose(tasks: Sequence[Task], running: Sequence[Task]) -> Task | None:
        busy = [by_name[task.name] for task in running]
        return next((t for t in tasks if not _waits(by_name[t.name], busy, store)), None)

    with here() if jobs == 1 else processes(jobs, 1) as submit:
        run_tasks(
            [task_of(experiment, place) for experiment in waiting],
            submit,
            summary,
            slots=jobs,
            choose=choose,
            over=place.over,
            log=log,
        )
    return summary


def task_of(experiment: ExperimentSpec, place: Place) -> Task:
    """An experiment as any process can run it."""
    arguments = {
        "experiment": _EXPERIMENT.dump_python(experiment, mode="json"),
        "place": _PLACE.dump_python(place, mode="json"),
    }
    return Task(experiment.name, experiment.key, f"{__name__}:work", arguments)


def work(task: Task) -> Outcome:
    """Run one experiment in this process, unless another process runs it."""
    experiment = _EXPERIMENT.validate_python(task.arguments["experiment"])
    place = _PLACE.validate_python(task.arguments["place"])
    try:
        with locked(place.work / "locks" / f"experiment-{task.key[:16]}", wait=False):
            if place.experiments.get(experiment) is not None:
                return Outcome("elsewhere", "already done by another runner")
            result = run_experiment(experiment, _store(place), place.work / "clones")
            place.experiments.put(experiment, result)
    except OutOfTimeError as e:
        return Outcome("interrupted", str(e))
    accuracy, victim = result.clone_accuracy, result.victim_accuracy
    return Outcome("done", f"clone {accuracy:.2%} of victim {victim:.2%}")


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


def _waits(
    experiment: ExperimentSpec, running: Sequence[ExperimentSpec], store: VictimStore
) -> bool:
    """Whether it needs a victim that a running experiment is training."""

    def untrained(one: ExperimentSpec) -> set[str]:
        return {v.key for v in (one.victim, *one.victim.needs) if not store.ready(v)}

    return any(untrained(experiment) & untrained(other) for other in running)
