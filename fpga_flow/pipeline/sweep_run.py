"""Runs a sweep's tasks: in processes here, or on a Dask cluster.

DIR/tasks/NAME/   a run directory (config.toml, manifest.json, train/, ...), and with it
    task.json       key, settings, key figures: written when the task is finished
    events.jsonl    one line a start and an end, with host and process
    log.txt         what the run printed
"""

import csv
import io
import json
import os
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import write_json, write_text
from fpga_flow.console import Progress, columns
from fpga_flow.errors import RunLockedError, explain, is_bug
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.run import execute
from fpga_flow.pipeline.rundir import RunDirectory, versions
from fpga_flow.pipeline.sweep_grid import SweepTask, stages_of
from fpga_flow.pipeline.task_process import dask, processes
from fpga_flow.pipeline.tasks import (
    LockedError,
    Log,
    Outcome,
    Summary,
    Task,
    locked,
    recorded,
    run_tasks,
    since,
)

SWEEP_LOCK = ".lock"  # in the sweep's folder, held by the one `divqat sweep` that works in it
TASK_LOCK = ".task-lock"  # in the task's, held by the process that runs it
RESULT = "task.json"


def run_sweep(
    tasks: Sequence[SweepTask],
    out: Path,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    log: Log = print,
) -> Summary:
    """Run every task that is not finished.

    Args:
        tasks: of `fpga_flow.pipeline.sweep_grid.read_sweep`.
        out: the sweep's folder; with ``cluster``, one that all its workers see.
        workers: processes at once; None: as many as the cores allow.
        cluster: address of a Dask scheduler, such as ``tcp://host:8786``; its workers decide how
            many tasks run at once. A task whose worker is lost is given to another one, which
            takes up what the first had finished of it.
        log: takes a line a task.

    Raises:
        InputError: too many workers for the machine, no scheduler at the address, or another
            process works in the folder.
        ToolMissingError: ``cluster`` without the package ``distributed``.
        KeyboardInterrupt: what was finished is kept. Processes here have ended; tasks that a
            cluster has begun go on to their end.
    """
    summary = Summary()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / SWEEP_LOCK, wait=False):
            waiting = [task for task in tasks if not finished(folder_of(out, task), task.key)]
            summary.there = len(tasks) - len(waiting)
            if not waiting:
                return summary
            if cluster is not None:
                place = dask(cluster, log)
            else:
                count, threads = share(waiting, workers)
                log(f"{len(waiting)} tasks in {count} processes, {threads} threads each")
                place = processes(count, threads)
            with place as submit:
                run_tasks([task_of(task, out) for task in waiting], submit, summary, log=log)
    except LockedError as e:
        raise RunLockedError(
            f"another divqat sweep works in {out}. Wait for it, or choose another --out."
        ) from e
    return summary


def share(
    tasks: Sequence[SweepTask], workers: int | None = None, cores: int | None = None
) -> tuple[int, int]:
    """How many processes run at once, and how many threads each has.

    The tasks' ``run.threads`` count. ``workers`` None: as many as ``cores``, None: those of this
    process, allow. An InputError names more threads than cores.

    Example:
        >>> share([], workers=3, cores=8)
        (3, 2)
    """
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    wanted = max((task.config.run.threads or 1 for task in tasks), default=1)
    if wanted > cores:
        raise InputError(f"run.threads = {wanted} is more than this machine's {cores} cores.")
    count = min(max(1, len(tasks)), cores // wanted) if workers is None else workers
    if count * wanted > cores:
        raise InputError(
            f"{count} workers of {wanted} threads are more than this machine's {cores} cores: "
            f"--workers {cores // wanted} at most."
        )
    return count, cores // count


def folder_of(out: Path, task: SweepTask) -> Path:
    """A task's run directory in a sweep's folder."""
    return out / "tasks" / task.folder


def finished(folder: Path, key: str) -> bool:
    """Whether a task is done and never to be run again."""
    record = recorded(folder / RESULT, key)
    return record is not None and record.get("state") == "done"


def task_of(task: SweepTask, out: Path) -> Task:
    """The task of a point of the grid, as any process can run it."""
    arguments = {
        "settings": task.settings,
        "config": task.config.model_dump_json(),
        "skip": list(task.skip),
    }
    folder, lock = folder_of(out, task).absolute(), (out / SWEEP_LOCK).absolute()
    function = f"{run_pipeline.__module__}:{run_pipeline.__name__}"
    return Task(task.name, task.key, function, arguments, str(folder), str(lock))


def run_pipeline(task: Task) -> Outcome:
    """Run a task's pipeline in this process, unless it is finished.

    Another process that has the task is waited for: its Dask worker was lost, or it finishes the
    task.
    """
    folder = Path(str(task.folder))
    started = time.monotonic()
    with locked(folder / TASK_LOCK, wait=True):
        if finished(folder, task.key):
            record = recorded(folder / RESULT, task.key) or {}
            return Outcome("there", "", record.get("seconds", 0.0), record.get("figures", {}))
        write_event(folder, "start", parent=os.getppid())
        try:
            outcome = _run(folder, task, started)
        except KeyboardInterrupt:
            outcome = Outcome("interrupted", "interrupted", since(started))
        except Exception as e:
            if is_bug(e):
                traceback.print_exc()  # into the task's log.txt
            outcome = Outcome("failed", explain(e)[0], since(started))
        write_event(folder, outcome.state, seconds=outcome.seconds, detail=outcome.detail)
    return outcome


def _run(folder: Path, task: Task, started: float) -> Outcome:
    config = Config.model_validate_json(task.arguments["config"])
    stages = stages_of(task.arguments["skip"])
    outcomes = execute(RunDirectory(folder), config, stages, progress=Progress())
    missing = next((one for one in outcomes if one.status == "missing-tool"), None)
    figures = key_figures(folder)
    outcome = Outcome("done", "", since(started), figures)
    if missing is not None:
        why = f"{missing.stage} did not run: {missing.reason}"
        outcome = replace(outcome, state="missing-tool", detail=why)
    about = {"schema": 1, "name": task.name, "key": task.key, **asdict(outcome)}
    about |= {name: task.arguments[name] for name in ("settings", "skip")}
    threads = os.environ.get("OMP_NUM_THREADS")
    write_json(folder / RESULT, about | {"threads": threads, "versions": versions()})
    if missing is not None:
        return outcome
    words = [
        f"{name.removeprefix('accuracy.')} {value:.1%}"
        for name, value in figures.items()
        if name.startswith("accuracy.")
    ]
    return replace(outcome, detail=", ".join(words))


def write_event(folder: Path, event: str, **more: Any) -> None:
    """Append a line to the task's log; only the holder of the task's lock may."""
    line = {
        "event": event,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "host": socket.gethostname(),
        "process": os.getpid(),
        **more,
    }
    with (folder / "events.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def events(folder: Path) -> list[dict[str, Any]]:
    """The task's log, oldest first; a line cut off by a crash is left out."""
    file = folder / "events.jsonl"
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def key_figures(run: Path) -> dict[str, float]:
    """Accuracies on test data, fractions of 1, by name, of a run in which ``train`` is done.

    ``accuracy.VARIANT`` (mean over training seeds), ``clone.VICTIM.POOL_KIND`` (the worst case over
    all oracles at the largest budget) and, for each oracle and budget,
    ``naive.VICTIM.ORACLE.POOL_KIND.BUDGET`` and ``worst.VICTIM.ORACLE.POOL_KIND.BUDGET``. A victim
    behind a defence is ``VICTIM + DEFENCE``.
    """
    from fpga_flow.report import collect
    from fpga_flow.report.hardness import hardness
    from fpga_flow.report.runs import named

    results = collect(run)
    by_variant: dict[str, list[float]] = {}
    for victim in results.victims:
        by_variant.setdefault(victim.variant, []).append(victim.accuracy)
    figures = {f"accuracy.{variant}": fmean(values) for variant, values in by_variant.items()}
    for model in hardness(results):
        figures[f"clone.{model.victim}.{model.group.pool_kind}"] = model.worst.mean
    for row in results.summary:
        where = f"{named(row.victim, row.defence)}.{row.oracle}.{row.pool_kind}.{row.budget}"
        if row.naive_clone_accuracy is not None:
            figures[f"naive.{where}"] = row.naive_clone_accuracy
        figures[f"worst.{where}"] = row.worst_case_clone_accuracy
    return figures


def rows(tasks: Sequence[SweepTask], out: Path, states: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row a task: name, folder, state, settings, seconds and figures.

    ``states`` is what became of tasks just now, by name; of others the state is what their folders
    say: "start" is a task that runs, or ran when it was killed.
    """
    table = []
    for task in tasks:
        folder = folder_of(out, task)
        record = recorded(folder / RESULT, task.key) or {}
        last = [event["event"] for event in events(folder)][-1:]
        state = states.get(task.name) or record.get("state") or (last[0] if last else "left")
        row = {"task": task.name, "folder": folder.relative_to(out).as_posix(), "state": state}
        row |= {"settings": task.settings, "seconds": record.get("seconds")}
        table.append(row | {"figures": record.get("figures", {})})
    return table


def write_table(table: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write ``summary.json`` and ``summary.csv`` (a column a setting and a figure) to ``out``."""
    write_json(out / "summary.json", {"schema": 1, "tasks": list(table)})
    settings, figures = _names(table, "settings"), _names(table, "figures")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "state", *settings, *figures, "seconds", "folder"])
    for row in table:
        values = [row["settings"].get(name) for name in settings]
        values += [row["figures"].get(name) for name in figures]
        writer.writerow([row["task"], row["state"], *values, row["seconds"], row["folder"]])
    write_text(out / "summary.csv", text.getvalue())


def table_text(table: Sequence[Mapping[str, Any]]) -> str:
    """The rows for a terminal: settings, accuracies, and the worst-case clones, in per cent."""
    settings = _names(table, "settings")
    figures = _names(table, "figures")
    variants = [name.removeprefix("accuracy.") for name in figures if name.startswith("accuracy.")]
    clone_keys = [name for name in figures if name.startswith("clone.")]
    clones = (name.removeprefix("clone.").rpartition(".") for name in clone_keys)
    header = [*settings, "state", *variants, *(f"clone of {v}, {kind}" for v, _, kind in clones)]
    lines: list[list[object]] = [[*header]]
    for row in table:
        found = row["figures"]
        line: list[object] = [row["settings"].get(name) for name in settings]
        line += [row["state"], *(_percent(found.get(f"accuracy.{v}")) for v in variants)]
        lines.append([*line, *(_percent(found.get(clone)) for clone in clone_keys)])
    return columns(lines)


def _names(table: Sequence[Mapping[str, Any]], part: str) -> list[str]:
    """The keys of all rows' ``part``, in the order met."""
    return list(dict.fromkeys(name for row in table for name in row[part]))


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f}"
