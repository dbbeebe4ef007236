"""Times of contestants that take turns, and what may be said of them.

A shared machine is slow in bursts. Contestants that take turns meet the same bursts, a ratio
within one round is of neighbours in time, and medians over rounds forget the worst of it.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from divqat_brevitas.errors import InputError


@dataclass(frozen=True)
class Spread:
    """Measurements, one a round.

    Attributes:
        samples: in the order of the rounds, at least one.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Middle of the samples."""
        return median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between them lies the middle half of the samples."""
        if len(self.samples) < 2:
            return self.median, self.median
        low, _, high = quantiles(self.samples, n=4, method="inclusive")
        return low, high

    def record(self) -> dict[str, Any]:
        """As stored: ``{"median", "low", "high", "samples"}``."""
        low, high = self.quartiles
        return {"median": self.median, "low": low, "high": high, "samples": list(self.samples)}


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Spread]:
    """Seconds of a call of each contestant, in turns: A B C A B C ...

    Every other round runs backwards, so that none always follows the same neighbour. Python's
    garbage collector runs between the rounds, not within.

    Args:
        contestants: name to a call; each does the whole work once and waits for its end.
        rounds: timed calls of each.
        warmup: calls of each before, not timed.
        clock: seconds, rising.

    Raises:
        InputError: fewer than one round.

    Example:
        >>> times = interleaved({"a": lambda: None, "b": lambda: sum(range(10_000))}, rounds=3)
        >>> len(times["a"].samples), times["a"].median < times["b"].median
        (3, True)
    """
    if rounds < 1:
        raise InputError(f"rounds={rounds}: it must be 1 or more.")
    for _ in range(warmup):
        for call in contestants.values():
            call()
    found: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    collecting = gc.isenabled()
    try:
        for number in range(rounds):
            gc.collect()
            gc.disable()
            for name in names if number % 2 == 0 else reversed(names):
                start = clock()
                contestants[name]()
                found[name].append(clock() - start)
            if collecting:
                gc.enable()
    finally:
        if collecting:
            gc.enable()
    return {name: Spread(tuple(samples)) for name, samples in found.items()}


def ratio(a: Spread, b: Spread) -> Spread:
    """How many times as long ``a`` took as ``b``, round by round.

    Example:
        >>> ratio(Spread((2.0, 30.0, 3.0)), Spread((1.0, 10.0, 2.0))).median
        2.0
    """
    return Spread(tuple(x / y for x, y in zip(a.samples, b.samples, strict=True)))


def shown_ratio(record: Mapping[str, Any]) -> str:
    """A stored ratio with its quartiles.

    Example:
        >>> shown_ratio({"median": 1.234, "low": 1.2, "high": 1.26})
        '1.23x (1.20 to 1.26)'
    """
    return f"{record['median']:.2f}x ({record['low']:.2f} to {record['high']:.2f})"


def shown_seconds(record: Mapping[str, Any]) -> str:
    """A stored time with its quartiles, in a unit that suits it.

    Example:
        >>> shown_seconds({"median": 0.0123, "low": 0.012, "high": 0.0131})
        '12.3 ms (12.0 to 13.1)'
    """
    values: Sequence[float] = [record[key] for key in ("median", "low", "high")]
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if values[0] >= size or unit == "µs":
            break
    middle, low, high = (_three_digits(value / size) for value in values)
    return f"{middle} {unit} ({low} to {high})"


def _three_digits(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
