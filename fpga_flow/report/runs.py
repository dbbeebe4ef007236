"""What a run's results hold, the one rule applied to them, and numbers as people read them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from divqat_brevitas.extraction.evaluation.statistics import Difference, Interval
from divqat_brevitas.extraction.evaluation.summary import (
    BASELINE,
    Attacker,
    Comparison,
    Group,
    compare,
)
from fpga_flow.report.schema import Results, VictimRow

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


_STAGES = ("estimate", "synthesis", "place_and_route", "bitstream")


@dataclass(frozen=True)
class Spread:
    """Values of one quantity over seeds, as fractions of 1; never empty."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return fmean(self.values)

    @property
    def low(self) -> float:
        """Smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Largest value."""
        return max(self.values)

    def scaled(self, factor: float) -> "Spread":
        """Every value times ``factor`` (100: in per cent)."""
        return Spread(tuple(factor * value for value in self.values))


def variants(results: Results) -> list[str]:
    """The victims' variants, in the order in which they were trained."""
    return list(dict.fromkeys(victim.variant for victim in results.victims))


def in_order(results: Results, names: Iterable[str]) -> list[str]:
    """``names`` of variants in the victims' order; unknown ones last, in their own order."""
    known = variants(results)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def is_plain(variant: str) -> bool:
    """Whether a variant is plain QAT: ``qat``, or ``qat-…`` trained to another accuracy."""
    return variant == BASELINE or variant.startswith(f"{BASELINE}-")


def defended(results: Results) -> list[str]:
    """The variants trained to be hard to steal: every one that is no plain one."""
    return [n for n in variants(results) if n not in ("float", "ptq") and not is_plain(n)]


def deployed_first(results: Results) -> list[str]:
    """The variants, the deployed one first: whose hardware got furthest, then the defended ones."""
    built: dict[str, int] = {}
    for row in results.hardware:
        built[row.variant] = max(_STAGES.index(row.stage), built.get(row.variant, 0))
    hard = defended(results)
    return sorted(variants(results), key=lambda name: (-built.get(name, -1), name not in hard))


def victim_spread(
    results: Results, variant: str, accuracy: Callable[[VictimRow], float | None]
) -> Spread | None:
    """A variant's test accuracy over its seeds, where it was measured; None if nowhere."""
    found = (accuracy(victim) for victim in results.victims if victim.variant == variant)
    values = tuple(value for value in found if value is not None)
    return Spread(values) if values else None


def clone_spread(attacker: Attacker) -> Spread:
    """Accuracy of an attacker's clones over victim seeds."""
    return Spread(tuple(attacker.by_victim.values()))


def named(victim: str, defence: str) -> str:
    """The victim with its defence, where it has one."""
    return victim if defence == "none" else f"{victim} + {defence}"


def image_count(results: Results) -> int | None:
    """Images that accuracies were measured on; None where that is not known."""
    return results.dataset.test or None


def compared(results: Results, ours: Group, theirs: Group) -> Comparison | None:
    """The worst cases of two groups of a run; None where one was not attacked."""
    return compare(results.attacks, results.victims, ours, theirs, image_count(results))


def class_names(results: Results, count: int | None = None) -> list[str]:
    """Names of the data set's classes, or of the first ``count``; numbers where it has no names.

    One more than there are is a reject output.
    """
    classes = results.dataset.classes
    names = [str(at) for at in range(classes)] if isinstance(classes, int) else list(classes)
    names += ["rejected"] * (count == len(names) + 1)
    return [*names, *map(str, range(len(names), count or 0))][:count]


def not_run(results: Results, stage: str) -> str:
    """Why a stage left nothing to show: ``not run: <reason>`` and its like."""
    found = results.run.stages.get(stage)
    if found is None or found.status == "not-run":
        why = found.reason if found else None
        return f"not run: {why or 'this stage is not recorded in the run'}"
    if found.status == "missing-tool":
        return f"not run: {found.reason or 'a tool it needs is not installed'}"
    if found.status == "failed":
        return f"failed: {found.reason or 'the run gives no reason'}"
    if found.status == "running":
        return "not run: the stage was begun and is not finished"
    return "the stage ran, and recorded nothing of this kind"
