"""Suite ``cluster``: extractions on a Dask cluster of two local workers, one of which is killed.

A sweep runs twice: task by task in one process, and on the cluster, where a worker that is in the
middle of an attack dies once another task is finished. Both have to give equal results, and the
cluster may begin again only what the worker was in the middle of.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import table
from benchmarks.speed.suite import Context, Line, Record, Section
from divqat_brevitas.errors import CheckFailedError, ToolMissingError
from divqat_brevitas.files import read_json, sha256_file
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.sweep_grid import SweepTask, read_sweep
from fpga_flow.pipeline.sweep_run import events, folder_of, run_sweep

_TASKS, _WORKERS = 4, 2
_POLL_SECONDS = 0.05
# A victim of one epoch on two classes: what it has learnt changes no cost of asking it.
_SWEEP = """
preset = "smoke"
skip = ["compile", "simulate"]
[base]
data.name = "{data}"
model.name = "{model}"
train.variants = ["float", "ptq"]
attack.victims = ["ptq"]
attack.budgets = [{queries}]
attack.pools = ["{pool}"]
[grid]
attack.seeds = [{seeds}]
"""
_FULL = {
    "data": "cifar10:0-1",
    "model": "resnet-8",
    "queries": 50_000,
    "pool": "dataset:fashion-mnist",
}
_QUICK = {"data": "digits", "model": "digits-cnn", "queries": 100, "pool": "in"}


def measure(context: Context) -> Record:
    """Run the sweep both ways and compare.

    Raises:
        CheckFailedError: results differ, a finished task or stage ran twice, or no worker could be
            killed in time.
        ToolMissingError: Dask is not installed.
    """
    try:
        from distributed import LocalCluster
    except ModuleNotFoundError as e:
        raise ToolMissingError("the suite needs Dask: `pip install '.[sweep]'`.") from e

    chosen = _QUICK if context.quick else _FULL
    seeds = ", ".join(f"[{seed}]" for seed in range(_TASKS))
    with tempfile.TemporaryDirectory(prefix="divqat-speed-") as name:
        folder = Path(name)
        (folder / "sweep.toml").write_text(_SWEEP.format(**chosen, seeds=seeds), "utf-8")
        tasks = read_sweep(folder / "sweep.toml")
        seconds = {}
        start = time.perf_counter()
        run_sweep(tasks, folder / "alone", workers=1, log=context.log)
        seconds["alone"] = time.perf_counter() - start
        cluster: Any = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=_WORKERS,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(folder / "dask"),
            silence_logs="CRITICAL",
        )
        with cluster, _Killer(tasks, folder / "cluster") as killer:
            start = time.perf_counter()
            address = cluster.scheduler_address
            summary = run_sweep(tasks, folder / "cluster", cluster=address, log=context.log)
            seconds["cluster"] = time.perf_counter() - start
        if summary.failed or summary.left:
            raise CheckFailedError(f"tasks of the cluster failed or were left: {summary.states}.")
        if run_sweep(tasks, folder / "cluster", workers=1, log=context.log).there != len(tasks):
            raise CheckFailedError("a second sweep found tasks of the cluster not finished.")
        return {
            **chosen,
            "seconds": {who: round(value, 1) for who, value in seconds.items()},
            "workers": _WORKERS,
            "tasks": _compare(tasks, folder, killer),
        }


class _Killer:
    """A thread that kills a Dask worker in an attack, as soon as another task is finished."""

    def __init__(self, tasks: Sequence[SweepTask], out: Path) -> None:
        self._tasks = tasks
        self._out = out
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.killed: SweepTask | None = None
        # What its task had finished then: files and the nanosecond of their writing.
        self.finished: dict[Path, int] = {}

    def __enter__(self) -> "_Killer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while self.killed is None and not self._over.wait(_POLL_SECONDS):
            words = {task.name: _words(self._out, task) for task in self._tasks}
            if not any("done" in found for found in words.values()):
                continue
            for task in self._tasks:
                record = RunDirectory(folder_of(self._out, task)).record("attack")
                if words[task.name] == ["start"] and record and record.status == "running":
                    self._kill(task)
                    break

    def _kill(self, task: SweepTask) -> None:
        folder = folder_of(self._out, task)
        self.finished = {
            file: file.stat().st_mtime_ns
            for stage in ("train", "export")
            for file in (folder / stage).rglob("*")
            if file.is_file()
        }
        os.kill(events(folder)[0]["parent"], signal.SIGKILL)
        self.killed = task


def _words(out: Path, task: SweepTask) -> list[str]:
    return [event["event"] for event in events(folder_of(out, task))]


def _compare(tasks: Sequence[SweepTask], folder: Path, killer: _Killer) -> list[dict[str, Any]]:
    """A row a task: its accuracies, and how often it was begun and finished on the cluster."""
    if killer.killed is None:
        raise CheckFailedError("no worker was in an attack while another task was finished.")
    if again := [file for file, at in killer.finished.items() if file.stat().st_mtime_ns != at]:
        raise CheckFailedError(f"finished before the worker died, and written again: {again[0]}.")
    rows = []
    for task in tasks:
        alone, shared = (_results(folder_of(folder / way, task)) for way in ("alone", "cluster"))
        if alone != shared:
            differs = sorted(n for n in alone | shared if alone.get(n) != shared.get(n))
            raise CheckFailedError(f"{task.name}: the cluster's {', '.join(differs)} differ.")
        words = _words(folder / "cluster", task)
        begun, done = words.count("start"), words.count("done")
        if done != 1 or begun != 1 + (task is killer.killed):
            raise CheckFailedError(f"{task.name} was begun {begun} and finished {done} times.")
        (attack,) = (alone[name] for name in alone if name.startswith("attack/"))
        row = {"name": task.name, "begun": begun, "finished": done}
        rows.append(row | {key: attack[key] for key in ("queries_used", "clone_accuracy")})
    return rows


def _results(run: Path) -> dict[str, Any]:
    """What may not depend on where a task ran: rows, the victim's file, key figures."""
    found: dict[str, Any] = {
        file.relative_to(run).as_posix(): read_json(file)
        for file in [*(run / "attack").glob("*.json"), run / "train" / "victims.json"]
    }
    found["figures"] = read_json(run / "task.json")["figures"]
    return found | {file.name: sha256_file(file) for file in (run / "export").glob("*.onnx")}


def section(record: Record) -> Section:
    """The tasks as a table."""
    seconds, rows = record["seconds"], record["tasks"]
    twice = [row["name"] for row in rows if row["begun"] > 1]
    cells = [
        (row["name"], f"{row['queries_used']:,}", f"{row['clone_accuracy']:.4f}",
         str(row["begun"]), str(row["finished"]))
        for row in rows
    ]  # fmt: skip
    lines = [
        f"{len(rows)} extractions of {record['model']} ({record['data']}, trained for one epoch) "
        f"with {record['queries']:,} queries from {record['pool']} each, clones of one epoch. In "
        f"one process: {seconds['alone']:.0f} s. On a Dask cluster of {record['workers']} local "
        f"workers, one killed in the middle of an attack: {seconds['cluster']:.0f} s. The "
        "seconds are no comparison: a worker has one thread, the process had two. Rows of the "
        "attacks, accuracies and exported files are equal; no finished task and no finished stage "
        f"ran again, and only {', '.join(twice)} was begun twice.",
        "",
        *table(("Task", "Queries", "Clone's accuracy", "Begun", "Finished"), cells),
    ]
    what = f"{len(rows)} extractions of {record['queries']:,} queries, {record['model']}"
    line = Line(what, "two Dask workers, one killed", "equal results", "one process")
    return Section("A cluster", lines, [line])
