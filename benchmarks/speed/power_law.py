"""How a cost grows: the exponent of a power law, fitted to logarithms."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from divqat_brevitas.extraction.evaluation.statistics import t_quantile


@dataclass(frozen=True)
class PowerLaw:
    """``cost = factor * size ** exponent`` by least squares on logarithms.

    Attributes:
        exponent: 1 is proportional, 0 does not grow.
        low: of the exponent's 95 % t-interval. It holds the scatter about a straight line; where
            a fixed cost bends the line, the exponent is a mean over the range.
        high: of the same.
        factor: the cost at size 1.
        points: how many were fitted.
    """

    exponent: float
    low: float
    high: float
    factor: float
    points: int

    def record(self) -> dict[str, Any]:
        """As stored."""
        return asdict(self)


def fit(sizes: Sequence[float], costs: Sequence[float]) -> PowerLaw | None:
    """The power law of at least three different sizes; None for fewer, or a cost of 0 or less.

    Args:
        sizes: above 0.
        costs: one a size.

    Example:
        >>> law = fit([1, 10, 100], [2, 20, 200])
        >>> round(law.exponent, 6), round(law.factor, 6), law.high - law.low < 1e-6
        (1.0, 2.0, True)
    """
    if len(set(sizes)) < 3 or min(costs) <= 0:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle_x, middle_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    spread = math.fsum((a - middle_x) ** 2 for a in x)
    exponent = math.fsum((a - middle_x) * b for a, b in zip(x, y, strict=True)) / spread
    offset = middle_y - exponent * middle_x
    left = math.fsum((b - offset - exponent * a) ** 2 for a, b in zip(x, y, strict=True))
    degrees = len(x) - 2
    half = t_quantile(degrees) * math.sqrt(left / degrees / spread)
    return PowerLaw(exponent, exponent - half, exponent + half, math.exp(offset), len(x))
