"""Small pieces of text: numbers as people read them, and what may be printed at all."""

import re
from collections.abc import Sequence

from divqat_brevitas.extraction.evaluation.statistics import Difference, Interval

POOLS = {"out": "out-of-distribution", "in": "in-distribution", "free": "data-free"}
"""Kinds of query pools in words; first the kind that says most about a defence."""
_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: object) -> str:
    """``text`` with what neither XML nor UTF-8 can carry (control codes, half pairs) as U+FFFD."""
    return _CONTROL.sub("\ufffd", str(text))


def percent(value: float) -> str:
    """A fraction as per cent: ``0.9734`` -> ``97.3 %``."""
    return f"{100 * value:.1f} %"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, signed: ``-0.012`` -> ``−1.2 points``."""
    return f"{100 * difference:+.1f} points".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """``["a", "b", "c"]`` -> ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 seed``, ``3 seeds``, ``2,000 queries``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


def with_interval(found: Difference | None) -> str:
    """``−1.2 points [−2.0, −0.4]``; without an interval where there is none."""
    if found is None:
        return "–"
    shown = points(found.mean)
    return shown if found.interval is None else f"{shown} {bracketed(found.interval)}"


def bracketed(interval: Interval) -> str:
    """An interval in points: ``[−2.0, −0.4]``."""
    return f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]".replace("-", "−")
