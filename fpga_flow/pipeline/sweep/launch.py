"""Start a cell's process and wait for its end: here, or within a Dask worker."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from fpga_flow.errors import explain
from fpga_flow.pipeline.sweep.cell import SWEEP_LOCK, Outcome, Task

# What BLAS, OpenMP and torch read when they are imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 15.0


def launch(task: Task, threads: int | None = None, stop: threading.Event | None = None) -> Outcome:
    """Run a cell in a process of its own.

    Args:
        task: the cell.
        threads: threads the process may use; None: what the environment says (a Dask nanny sets
            it), else one.
        stop: when set, the process is interrupted as by Ctrl-C.

    Returns:
        The outcome; a process that dies, or cannot be started, is a failed cell, not an exception.
    """
    try:
        return _launch(task, threads, stop)
    except OSError as e:
        return Outcome("failed", explain(e)[0])


def _launch(task: Task, threads: int | None, stop: threading.Event | None) -> Outcome:
    folder = Path(task.folder)
    if not (task.sweep / SWEEP_LOCK).exists():
        return Outcome(
            "failed",
            f"{socket.gethostname()} does not see {task.sweep}. Choose for --out a folder on a "
            "file system that all workers share.",
        )
    if stop is not None and stop.is_set():
        return Outcome("interrupted", "not begun")
    environment = dict(os.environ)
    for name in THREAD_VARIABLES:
        environment[name] = str(threads or environment.get(name, 1))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fpga_flow.pipeline.sweep.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
            start_new_session=True,  # Ctrl-C of the terminal comes to us alone
        )
        answer = _wait(process, json.dumps(asdict(task) | {"parent": os.getpid()}), stop)
    if answer:
        return Outcome(**json.loads(answer))
    if stop is not None and stop.is_set():
        return Outcome("interrupted", "interrupted")
    return Outcome("failed", f"{_end(process.returncode)}. Its last words: {folder / 'log.txt'}")


def _wait(process: "subprocess.Popen[str]", task: str, stop: threading.Event | None) -> str:
    """What the process says; it gets some time to end once ``stop`` is set."""
    patience = _GRACE_SECONDS
    given: str | None = task
    while True:
        try:
            return process.communicate(given, timeout=_POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            given = None  # communicate goes on with what it was given first
        if stop is not None and stop.is_set():
            if patience == _GRACE_SECONDS:
                process.send_signal(signal.SIGINT)
            patience -= _POLL_SECONDS
            if patience <= 0:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # a group of its own


def _end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for lack of memory (fewer --workers need less)"
    if code < 0:
        return f"its process was ended by signal {-code}"
    return f"its process ended with exit code {code} and said nothing"
