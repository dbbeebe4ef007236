"""Where tasks run: in this process, in processes of their own, or on a Dask cluster.

A task in a process of its own gets its number of threads (torch reads it when it is imported), and
what breaks in one task cannot break another. Such a process reads the task from stdin and writes
the outcome to stdout; it ends with the process that started it. Dask's workers start the same
processes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError, ToolMissingError
from fpga_flow.errors import explain
from fpga_flow.pipeline.tasks import Log, Outcome, Task, run_here

Submit = Callable[[Task], Future[Outcome]]
# What BLAS, OpenMP and torch read when they are imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CONNECT_SECONDS = 20
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 15.0  # of a process that is asked to end
_ORPHAN_SECONDS = 10.0  # of a process whose parent is gone


def processes_beside(threads: int | None) -> int:
    """Processes of so many threads that this one may have beside itself; None: all cores' threads.

    A process that was given a number of threads (``OMP_NUM_THREADS``), as a task of a sweep is,
    keeps to it.
    """
    cores = len(os.sched_getaffinity(0))
    given = os.environ.get(THREAD_VARIABLES[0], "")
    allowed = min(cores, int(given)) if given.isdecimal() else cores
    return max(1, allowed // (threads or cores))


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread, as a task's process has it: equal results need equal numbers."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def here() -> Iterator[Submit]:
    """Run each task at once, in this process, with one thread."""

    def submit(task: Task) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_result(run_here(task))
        return future

    with one_thread():
        yield submit


@contextmanager
def processes(count: int, threads: int) -> Iterator[Submit]:
    """Run tasks in ``count`` processes here; an exception in the block ends those that run."""
    stop = threading.Event()
    with ThreadPoolExecutor(count) as pool:
        try:
            yield lambda task: pool.submit(launch, task, threads, stop)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def dask(address: str, log: Log) -> Iterator[Submit]:
    """Run tasks on the workers of a Dask scheduler; those begun go on after an exception.

    Raises:
        InputError: no scheduler answers at the address.
        ToolMissingError: Dask is not installed.
    """
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
            "`dask worker ADDRESS --nworkers N --nthreads 1` where the tasks shall run."
        ) from e
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        slots = sum(worker["nthreads"] for worker in workers)
        log(f"{len(workers)} workers at {address} run {slots} tasks at once (none: it waits)")
        # A task is no pure function: equal ones are not answered from the cluster's memory.
        executor: Executor = client.get_executor(pure=False)
        try:
            yield lambda task: executor.submit(launch, task)
        finally:
            executor.shutdown(wait=False)


def launch(task: Task, threads: int | None = None, stop: threading.Event | None = None) -> Outcome:
    """Run a task in a process of its own; one that dies, or cannot be started, is a failed task.

    ``threads`` may be used by the process; None: what the environment says (a Dask nanny sets it),
    else one. When ``stop`` is set, the process is interrupted as by Ctrl-C.
    """
    try:
        return _launch(task, threads, stop)
    except OSError as e:
        return Outcome("failed", explain(e)[0])


def _launch(task: Task, threads: int | None, stop: threading.Event | None) -> Outcome:
    if task.shared is not None and not Path(task.shared).exists():
        return Outcome(
            "failed",
            f"{socket.gethostname()} does not see {Path(task.shared).parent}. Choose for --out a "
            "folder on a file system that all workers share.",
        )
    if stop is not None and stop.is_set():
        return Outcome("interrupted", "not begun")
    environment = dict(os.environ)
    for name in THREAD_VARIABLES:
        environment[name] = str(threads or environment.get(name, 1))
    job = {"task": asdict(task), "parent": os.getpid(), "path": sys.path}
    with _log_of(task) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fpga_flow.pipeline.task_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            text=True,
            start_new_session=True,  # Ctrl-C of the terminal comes to us only
        )
        answer = _wait(process, json.dumps(job), stop)
    if answer:
        return Outcome(**json.loads(answer))
    if stop is not None and stop.is_set():
        return Outcome("interrupted", "interrupted")
    where = "" if task.folder is None else f" Its last words: {Path(task.folder) / 'log.txt'}"
    return Outcome("failed", f"{_end(process.returncode)}.{where}")


def _log_of(task: Task) -> Any:
    """An open file for what the process prints; None: our own stderr."""
    if task.folder is None:
        return nullcontext()
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "log.txt").open("ab")


def _wait(process: "subprocess.Popen[str]", job: str, stop: threading.Event | None) -> str:
    """What the process writes to stdout; it gets some time to end once ``stop`` is set."""
    patience = _GRACE_SECONDS
    given: str | None = job
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
        return "its process was killed, perhaps for lack of memory (fewer processes need less)"
    if code < 0:
        return f"its process was ended by signal {-code}"
    return f"its process ended with exit code {code} and no outcome"


def main() -> None:
    """Run the task on stdin; whatever libraries print goes to stderr."""
    document = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A shell's background job ignores Ctrl-C, and its children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.load(sys.stdin)
    sys.path[:] = job["path"]
    threading.Thread(target=_end_with, args=(job["parent"],), daemon=True).start()
    try:
        outcome = run_here(Task(**job["task"]))
    except KeyboardInterrupt:
        outcome = Outcome("interrupted", "interrupted")
    document.write(outcome.to_json())
    document.close()


def _end_with(parent: int) -> None:
    """Interrupt this process when the one that started it is gone; then end it for good."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_ORPHAN_SECONDS)
    if os.getpgrp() == os.getpid():  # a group of our own: tools that we started
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
