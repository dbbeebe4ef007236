"""Numbers as the benchmark's Markdown tables show them."""

import re
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from divqat_brevitas.extraction.evaluation.statistics import Difference
from divqat_brevitas.extraction.evaluation.summary import MATCHED

NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; nothing without rows."""
    found = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *found, ""] if found else []


def percentages(values: Sequence[float]) -> str:
    """Mean ± standard deviation over victim seeds, in per cent: ``66.1 ± 0.5``."""
    return spread([100 * value for value in values], 1)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; the mean alone of one value, a dash of none."""
    if not values:
        return NONE
    middle = f"{fmean(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ± {stdev(values):.{digits}f}"


def difference(found: Difference | None, mark: str = "") -> str:
    """``−1.2 [−2.0, −0.4]`` in points; bold where the t-interval excludes zero."""
    if found is None:
        return NONE
    shown = f"{100 * found.mean:+.1f}"
    if found.t is not None:
        shown += f" [{100 * found.t.low:+.1f}, {100 * found.t.high:+.1f}]"
        if 0.0 not in found.t:
            shown = f"**{shown}**"
    return _signs(shown) + mark


def cost(found: Difference | None) -> str:
    """What a victim paid against plain QAT: ``0.4``, or flagged ``costs 3.1``, in points."""
    if found is None:
        return NONE
    points = _signs(f"{-100 * found.mean:.1f}")
    return f"costs {points}" if -found.mean > MATCHED else points


def _signs(text: str) -> str:
    """Minus signs, and none before a zero."""
    return re.sub(r"-(0\.0\b)", r"\1", text).replace("-", "−")
