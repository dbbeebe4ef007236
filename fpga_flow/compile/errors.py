"""What can go wrong in a FINN build, beyond the input being refused."""

from pathlib import Path

from divqat_brevitas.errors import CheckFailedError


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
