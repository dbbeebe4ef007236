"""The errors a user can meet, one class an exit code.

DivQATError               base: one readable paragraph (what, where, what to do)
├── CheckFailedError      exit 1: a check failed (parity, equivalence, guard)
├── InputError            exit 2: bad input or usage
└── ToolMissingError      exit 3: a tool or package is not installed

A message names the input and the fix. Anything else that escapes is a bug.

What a user should read though the work goes on is a :class:`DivQATWarning`; the command line shows
these and hides those of the libraries underneath.
"""

import difflib
from collections.abc import Iterable


class DivQATError(Exception):
    """Base of every error meant for a user; ``exit_code`` is the process' exit code."""

    exit_code = 1


class CheckFailedError(DivQATError):
    """A check ran and failed: engines disagree, a guard tripped (exit code 1)."""

    exit_code = 1


class InputError(DivQATError):
    """Something the user gave is missing, malformed or unknown (exit code 2)."""

    exit_code = 2


class ToolMissingError(DivQATError):
    """A tool or optional package is not installed (exit code 3)."""

    exit_code = 3


class DivQATWarning(UserWarning):
    """Base of every warning meant for a user: one readable line, shown once."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist, with the nearest one that does.

    Example:
        >>> print(unknown_name("preset", "nasti", ["nasty", "convex"]))
        unknown preset 'nasti': did you mean 'nasty'? Known: convex, nasty.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}:{hint} Known: {', '.join(names)}.")
