"""The errors a user can meet, one class an exit code, and the check of settings.

DivQATError               base: one readable paragraph (what, where, what to do)
├── CheckFailedError      exit 1: a check failed (parity, equivalence, guard)
├── InputError            exit 2: bad input or usage
└── ToolMissingError      exit 3: a tool or package is not installed

A message names the input and the fix. Anything else that escapes is a bug.

What a user should read though the work goes on is a :class:`DivQATWarning`; the command line shows
these and hides those of the libraries underneath.
"""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import get_type_hints


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


@dataclass(frozen=True)
class Within:
    """The numbers that a field of :class:`CheckedSettings` may have, if it is not None.

    Attributes:
        low: smallest number; None: no such bound.
        high: largest number.
        above: a bound that the number must exceed.
        below: a bound that the number must stay under.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number is inside; NaN is not."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = (("at least", self.low), ("above", self.above), ("at most", self.high))
        words = [f"{word} {bound}" for word, bound in bounds if bound is not None]
        return " and ".join(words if self.below is None else [*words, f"below {self.below}"])


@dataclass(frozen=True)
class OneOf:
    """The names that a field of :class:`CheckedSettings` may have, and what one is called."""

    kind: str
    names: Collection[str]


class CheckedSettings:
    """Base of dataclasses whose annotations state what their fields may be.

    Raises:
        InputError: a field outside its ``Within`` or ``OneOf``, when an object is made.

    Example:
        >>> from typing import Annotated
        >>> @dataclass
        ... class Settings(CheckedSettings):
        ...     rate: Annotated[float, Within(above=0, high=1)] = 0.5
        >>> Settings(rate=2.0)
        Traceback (most recent call last):
        ...
        divqat_brevitas.errors.InputError: Settings: rate=2.0 must be above 0 and at most 1.
    """

    def __post_init__(self) -> None:
        for field, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, field, None)
            for rule in getattr(hint, "__metadata__", ()):
                if isinstance(rule, OneOf) and value not in rule.names:
                    raise unknown_name(rule.kind, str(value), rule.names)
                if isinstance(rule, Within) and value is not None:
                    whole = hint.__origin__ in (int, int | None)
                    kind = Integral if whole else Real
                    number = isinstance(value, kind) and not isinstance(value, bool)
                    if not number or not rule.holds(value):
                        expected = rule if number else f"a {'whole ' * whole}number"
                        raise InputError(f"{self._label}: {field}={value!r} must be {expected}.")

    @property
    def _label(self) -> str:
        return type(self).__name__
