"""Start the worker process, give it jobs, and turn its end into a readable error."""

import importlib.util
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from divqat_brevitas.errors import CheckFailedError, InputError, ToolMissingError
from divqat_brevitas.files import read_json, write_json
from fpga_flow.compile.worker_build import STEP_MARK


class BuildError(CheckFailedError):
    """FINN failed in a step, or its worker process died or was stopped.

    Attributes:
        step: name of the step that ran, such as ``step_streamline``.
        log_tail: the last lines of the log.
        log: the whole log, where it is kept.
    """

    def __init__(self, step: str, reason: str, log: Path | None, log_tail: str) -> None:
        self.step = step
        self.log = log
        self.log_tail = log_tail
        where = "" if log is None else f" The whole log is {log}."
        tail = f" The log's last lines:\n{log_tail}" if log_tail else ""
        super().__init__(f"FINN, {step}: {reason}.{where}{tail}")


_TAIL_LINES = 25
_INSTALL = (
    "Install it with `pip install '.[finn]'` and then `pip install --no-deps mip finn-plus` "
    "(its published pins contradict torch 2.13). No Vivado is needed."
)


def require_finn() -> None:
    """Check that finn-plus is installed, without importing it.

    Raises:
        ToolMissingError: it is not, with the commands that install it.
    """
    if not finn_installed():
        raise ToolMissingError(f"FINN builds need finn-plus, which is not installed. {_INSTALL}")


def finn_installed() -> bool:
    """Whether finn-plus is there, without importing it."""
    # The package index has an empty package "finn", too, without a builder.
    return importlib.util.find_spec("finn") is not None and _has("finn.builder")


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Worker:
    """A worker process with a home of its own; a context manager.

    Args:
        folder: an existing folder for its temporary files and home directory.
        log: file that gets everything the worker and FINN print.
        log_kept: whether that file outlives the worker, so that errors may point to it.
        environment: of the process; None: ours without FINN's settings, and with a home of
            its own.

    Raises:
        ToolMissingError: finn-plus is not installed.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        *,
        log_kept: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        require_finn()
        self._log = log
        self._log_kept = log_kept
        self._folder = folder
        self._jobs = 0
        with log.open("a", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fpga_flow.compile.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=folder,
                env=_environment(folder) if environment is None else environment,
                text=True,
                # Ctrl-C goes to us alone; we stop the worker.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process number of the worker."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it takes another job."""
        return self._process.poll() is None

    def close(self) -> None:
        """Stop the process and whatever it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def run(self, job: dict[str, Any], timeout_s: float) -> Any:
        """Give the worker a job and wait for its result.

        Raises:
            InputError: the job's input is refused.
            CheckFailedError: the job found that something does not hold or fit.
            ToolMissingError: FINN, or something it needs, cannot be imported.
            BuildError: a step failed, or the worker died or took longer than ``timeout_s``.
        """
        self._jobs += 1
        answer = self._folder / f"answer-{self._jobs}.json"
        path = self._folder / f"job-{self._jobs}.json"
        write_json(path, {**job, "answer": str(answer)})
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f"{path}\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._died(job) from None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                self.close()
                raise self._error(
                    self._last_step(job),
                    f"took longer than {timeout_s:g} s and was stopped. Give it more time "
                    "(timeout_s), or build a smaller network.",
                )
            if stdout.readline() == "":
                raise self._died(job)
        reply = read_json(answer)
        if "result" in reply:
            return reply["result"]
        if reply["error"] == "input":
            raise InputError(reply["message"])
        if reply["error"] == "check":
            raise CheckFailedError(reply["message"])
        if reply["error"] == "tool":
            raise ToolMissingError(
                f"finn-plus is there, but cannot be imported: {reply['message']}. {_INSTALL}"
            )
        if reply["unmappable"]:
            raise InputError(
                f"FINN has no hardware for this network: {reply['step']} says: "
                f"{reply['message'].rstrip('.')}. `divqat check` lists what FINN takes."
            )
        raise self._error(reply["step"], reply["message"])

    def _died(self, job: dict[str, Any]) -> BuildError:
        code = self._process.wait()
        how = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
        hint = " Out of memory is a frequent reason." if code == -signal.SIGKILL else ""
        return self._error(self._last_step(job), f"the worker process {how}.{hint}")

    def _error(self, step: str, reason: str) -> BuildError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        log = self._log if self._log_kept else None
        return BuildError(step, reason.rstrip(". "), log, "\n".join(lines[-_TAIL_LINES:]))

    def _last_step(self, job: dict[str, Any]) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        started = [line.removeprefix(STEP_MARK) for line in lines if line.startswith(STEP_MARK)]
        return started[-1] if started else str(job["kind"])


def _environment(folder: Path) -> dict[str, str]:
    """Ours without FINN's settings; home and build directory inside ``folder``."""
    home, build = folder / "home", folder / "finn"
    home.mkdir(exist_ok=True)
    build.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FINN_", "PYTEST_"))}
    return kept | {
        "HOME": str(home),
        "FINN_BUILD_DIR": str(build),
        "NUM_DEFAULT_WORKERS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": python_path(),
    }


def python_path() -> str:
    """PYTHONPATH of a worker: this package's folder first, then ours."""
    package = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
