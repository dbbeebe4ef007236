"""The process of one cell: task on stdin, outcome on stdout.

A process of its own gives every cell its number of threads (read when torch is imported), and
what breaks in one cannot break another. It ends with the process that started it.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from fpga_flow.console import Progress
from fpga_flow.errors import explain, is_bug
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.locks import locked
from fpga_flow.pipeline.run import execute
from fpga_flow.pipeline.rundir import RunDirectory, versions
from fpga_flow.pipeline.sweep.cell import (
    CELL_LOCK,
    Outcome,
    Task,
    finished,
    outcome_json,
    recorded,
    write_event,
)
from fpga_flow.pipeline.sweep.plan import stages_of

_GRACE_SECONDS = 10.0


def main() -> None:
    """Run the task on stdin; whatever libraries print goes to stderr."""
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A shell's background job ignores Ctrl-C, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = json.load(sys.stdin)
    threading.Thread(target=_end_with, args=(given.pop("parent"),), daemon=True).start()
    task = Task(**given | {"skip": tuple(given["skip"])})
    document.write(outcome_json(run_task(task)))
    document.close()


def run_task(task: Task) -> Outcome:
    """Run a cell's pipeline in this process, unless it is finished.

    Another process that has the cell is waited for: it is the last act of one whose Dask worker
    was lost, or ends with the cell finished.
    """
    folder = Path(task.folder)
    started = time.monotonic()
    with locked(folder / CELL_LOCK, wait=True):
        if finished(folder, task.key):
            return _there(folder, task)
        write_event(folder, "start", parent=os.getppid())
        try:
            outcome = _run(folder, task, started)
        except KeyboardInterrupt:
            outcome = Outcome("interrupted", "interrupted", _since(started))
        except Exception as e:
            if is_bug(e):
                traceback.print_exc()  # into the cell's log.txt
            outcome = Outcome("failed", explain(e)[0], _since(started))
        write_event(folder, outcome.state, seconds=outcome.seconds, detail=outcome.detail)
    return outcome


def _run(folder: Path, task: Task, started: float) -> Outcome:
    from divqat_brevitas.files import write_json
    from fpga_flow.pipeline.sweep.figures import key_figures

    config = Config.model_validate_json(task.config)
    run = RunDirectory(folder)
    outcomes = execute(run, config, stages_of(task.skip), progress=Progress())
    lacking = [outcome for outcome in outcomes if outcome.status == "missing-tool"]
    outcome = Outcome(
        "missing-tool" if lacking else "done",
        f"{lacking[0].stage} did not run: {lacking[0].reason}" if lacking else "",
        _since(started),
        key_figures(folder),
    )
    write_json(
        folder / "cell.json",
        {
            "schema": 1,
            "name": task.name,
            "key": task.key,
            "state": outcome.state,
            "detail": outcome.detail,
            "settings": task.settings,
            "skip": task.skip,
            "seconds": outcome.seconds,
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "versions": versions(),
            "figures": outcome.figures,
        },
    )
    return outcome


def _there(folder: Path, task: Task) -> Outcome:
    record = recorded(folder, task.key) or {}
    return Outcome("there", "", record.get("seconds", 0.0), record.get("figures", {}))


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)


def _end_with(parent: int) -> None:
    """Interrupt this process when the one that started it is gone; then end it for good."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_SECONDS)
    if os.getpgrp() == os.getpid():  # a group of our own: tools that we started
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
