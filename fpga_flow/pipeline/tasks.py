"""Resumable tasks: the one engine of stages, sweeps and the benchmark.

A task has a key, the hash of everything its result depends on, and its result is written whole
together with that key. A task whose result is there is not run again, and a task that is killed
leaves none and is run again. A lock keeps two processes from running one task at the same time.
:mod:`fpga_flow.pipeline.task_process` runs tasks in processes of their own.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.errors import explain, is_bug

State = Literal["done", "there", "missing-tool", "failed", "interrupted", "elsewhere"]
Log = Callable[[str], None]


class LockedError(Exception):
    """Another process, or another holder in this one, has the lock."""


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock ``path``, a file that is made and stays; ``wait`` for another holder.

    The operating system releases the lock when its process ends, however that ends.

    Raises:
        LockedError: another holder has it and ``wait`` is False.
        OSError: the file cannot be written, or its file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout as e:
        raise LockedError(str(path)) from e
    try:
        yield
    finally:
        lock.release()


def recorded(file: Path, key: str | None = None) -> dict[str, Any] | None:
    """The JSON document of a result; None where there is none, or one of another key.

    A damaged document counts as none: the task is run again. ``key`` None takes one of any key.
    """
    if not file.is_file():
        return None
    try:
        record = read_json(file)
    except InputError:
        return None
    if not isinstance(record, dict):
        return None
    return record if key is None or record.get("key") == key else None


@dataclass(frozen=True)
class Task:
    """Everything another process, here or on another machine, needs to run a task."""

    name: str  # readable and unique among the tasks of a call
    key: str  # SHA-256 of everything the result depends on
    function: str  # ``"module:name"`` of what runs it: it takes the task and returns an ``Outcome``
    arguments: Mapping[str, Any]  # of that function, as JSON values
    # Absolute path of the folder that gets ``log.txt``; None: its lines go to stderr
    folder: str | None = None
    # Absolute path of a file that every machine that runs the task must see
    shared: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    # ``"there"``: it was finished before; ``"missing-tool"``: it is finished but for what needs a
    # tool that is not installed; ``"elsewhere"``: another process runs it
    state: State
    detail: str = ""  # the result in words, or why there is none
    seconds: float = 0.0  # wall time
    figures: Mapping[str, float] = field(default_factory=dict)  # numbers of the result, by name

    def __str__(self) -> str:
        match self.state:
            case "done":
                return f"{self.detail} in {span(self.seconds)}".lstrip()
            case "there":
                return "finished before"
            case _:
                return f"{self.state}: {self.detail}"

    def to_json(self) -> str:
        """The outcome as one line."""
        return json.dumps(asdict(self), allow_nan=False)


@dataclass
class Summary(ShortRepr):
    """What a call of ``run_tasks`` did."""

    done: list[str] = field(default_factory=list)  # names of the tasks finished now
    there: int = 0  # how many were finished before
    # Tasks not run: no time, another process has them, or the cluster went away
    left: list[str] = field(default_factory=list)
    # Tasks that a tool is missing for, and which
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # tasks that failed, and why

    @property
    def states(self) -> dict[str, str]:
        """What became of the tasks that failed or are left, by name."""
        return dict.fromkeys(self.failed, "failed") | dict.fromkeys(self.left, "left")

    def add(self, name: str, outcome: Outcome) -> None:
        """Take in the outcome of one task."""
        match outcome.state:
            case "done":
                self.done.append(name)
            case "there":
                self.there += 1
            case "missing-tool":
                self.missing[name] = outcome.detail
            case "failed":
                self.failed[name] = outcome.detail
            case _:
                self.left.append(name)


def run_here(task: Task) -> Outcome:
    """Run a task in this process; an exception is a failed task, so that it costs no other one."""
    started = time.monotonic()
    try:
        module, name = task.function.split(":")
        outcome: Outcome = getattr(import_module(module), name)(task)
    except LockedError:
        return Outcome("elsewhere", "another process runs it")
    except Exception as e:
        if is_bug(e):
            traceback.print_exc()
        outcome = Outcome("failed", explain(e)[0])
    return outcome if outcome.seconds else replace(outcome, seconds=since(started))


def run_tasks(
    tasks: Sequence[Task],
    submit: Callable[[Task], Future[Outcome]],
    summary: Summary,
    *,
    slots: int | None = None,
    choose: Callable[[Sequence[Task], Sequence[Task]], Task | None] = lambda waiting, _: waiting[0],
    over: Callable[[], bool] = lambda: False,
    log: Log = print,
) -> None:
    """Run tasks, several at once, and note what becomes of each.

    Args:
        tasks: those that are not finished, in order.
        submit: starts a task somewhere, see ``fpga_flow.pipeline.task_process``.
        summary: gets every outcome.
        slots: how many run at once; None: all are given to ``submit``, which decides.
        choose: the next task from those that wait and those that run; None: none may start now.
        over: whether the time is over: nothing new starts then.
        log: takes a line a task, with the time still to go.
    """
    begun = time.monotonic()
    waiting, running = list(tasks), dict[Future[Outcome], Task]()
    ended = 0
    while waiting or running:
        while waiting and (slots is None or len(running) < slots) and not over():
            task = choose(waiting, list(running.values()))
            if task is None:
                break
            waiting.remove(task)
            running[submit(task)] = task
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            ended += 1
            try:
                outcome = future.result()
            except CancelledError:
                summary.left.append(task.name)
                continue
            except Exception as e:
                # A task itself raises nothing: the cluster gave it up.
                outcome = Outcome("failed", f"the cluster gave it up: {type(e).__name__}: {e}")
            summary.add(task.name, outcome)
            rest = (len(tasks) - ended) * (time.monotonic() - begun) / ended
            log(f"[{ended}/{len(tasks)}] {task.name}: {outcome}, {span(rest)} to go")
    summary.left += [task.name for task in waiting]


def since(started: float) -> float:
    """Seconds since ``time.monotonic()`` was ``started``, to hundredths."""
    return round(time.monotonic() - started, 2)


def span(seconds: float) -> str:
    """A time for people.

    Example:
        >>> span(12), span(600), span(7500)
        ('12 s', '10 min', '2 h 05 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
