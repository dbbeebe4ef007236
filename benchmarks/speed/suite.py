"""The suites by name, and what a suite gets and gives (see the package's docstring)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast

from divqat_brevitas.errors import unknown_name

Record = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """How a suite is to measure.

    Attributes:
        rounds: how often every contestant is timed.
        threads: of computation; a suite hands it to every library it uses.
        quick: the smallest sizes that run at all: shows that the suite works, not how fast.
        log: takes lines on progress.
    """

    rounds: int = 15
    threads: int = 1
    quick: bool = False
    log: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Line:
    """One line of the summary's table.

    Attributes:
        what: the work that was timed.
        ours: what is ours, or what is judged.
        value: how fast it is, as shown: a ratio or a rate.
        beside: what it was compared with.
    """

    what: str
    ours: str
    value: str
    beside: str


@dataclass(frozen=True)
class Section:
    """What is published of one suite, made from its record alone.

    Attributes:
        title: heading in ``benchmarks/speed/README.md``.
        lines: Markdown lines under it.
        summary: its lines in the summary's table.
    """

    title: str
    lines: Sequence[str]
    summary: Sequence[Line] = field(default_factory=tuple)


class Suite(Protocol):
    """A module of the registry."""

    def measure(self, context: Context) -> Record:
        """Time the contestants."""
        ...

    def section(self, record: Record) -> Section:
        """The published form of what ``measure`` gave."""
        ...


@dataclass(frozen=True)
class Entry:
    """Where a suite is, and what it measures."""

    module: str
    about: str


# In the order published. One line a suite.
SUITES: Mapping[str, Entry] = {
    "training": Entry("benchmarks.speed.training", "a training step: float, stock, ours"),
    "own-loop": Entry(
        "benchmarks.speed.own_loop", "a step of a user's own loop: float, stock, ours"
    ),
    "engines": Entry("benchmarks.speed.engines", "images a second of every engine"),
    "attacks": Entry("benchmarks.speed.attacks", "an extraction: victim, training, memory"),
    "costs": Entry("benchmarks.speed.costs", "growth with images, parameters and bits"),
    "cluster": Entry("benchmarks.speed.cluster", "extractions on Dask, a worker killed"),
    "startup": Entry("benchmarks.speed.startup", "the command line and the imports"),
}


def load_suite(name: str) -> Suite:
    """The module of a suite.

    Raises:
        InputError: no such suite, with the nearest name.

    Example:
        >>> load_suite("training").__name__
        'benchmarks.speed.training'
    """
    if name not in SUITES:
        raise unknown_name("speed suite", name, SUITES)
    return cast(Suite, import_module(SUITES[name].module))
