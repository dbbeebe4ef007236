"""From any exception to one readable paragraph and the process' exit code.

Exit codes: 0 fine, 1 a check failed (or a bug of ours), 2 bad input or usage,
3 a tool is missing, 130 interrupted.
"""

import errno
import os

from divqat_brevitas.errors import DivQATError, InputError


class RunLockedError(InputError):
    """Another process works in this run directory."""


class InterruptedRunError(DivQATError):
    """Ctrl-C; what was finished is kept."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("interrupted; run the same command again to continue")


def explain(error: BaseException) -> tuple[str, int]:
    """The paragraph for a user, and the exit code.

    Example:
        >>> explain(MemoryError())[1]
        2
    """
    known = _explain_known(error)
    if known is not None:
        return known
    return (
        f"internal error ({type(error).__name__}: {error}). This is a bug in divqat: please "
        "report it with the command and this text. DIVQAT_DEBUG=1 shows the traceback.",
        1,
    )


def is_bug(error: BaseException) -> bool:
    """Whether an exception is none that a user can cause."""
    return _explain_known(error) is None


def _explain_known(error: BaseException) -> tuple[str, int] | None:
    if isinstance(error, InputError):
        return str(error), error.exit_code
    if _is_disk_full(error):
        return (
            f"the disk is full ({error}). Free space, then run the same command again: what "
            "was finished is kept.",
            InputError.exit_code,
        )
    if isinstance(error, DivQATError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _explain_known(InterruptedRunError())
    if _is_out_of_memory(error):
        return (
            "out of memory. Close other programs, or set a smaller train.batch_size or "
            "model.name; then run the same command again: what was finished is kept.",
            InputError.exit_code,
        )
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.strerror}: {error.filename}. Check the path and its permissions.",
            InputError.exit_code,
        )
    return None


def _is_disk_full(error: BaseException) -> bool:
    # By its text too: it comes out of Rust (safetensors) and of FINN's log as other exceptions.
    texts = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    return any(text in str(error) for text in texts)


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )
