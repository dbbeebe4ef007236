"""What a network takes: the declared range of its inputs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError

_NOISE = 2.0**-21  # relative: a few roundings of float32, as a user's own normalisation has


@dataclass(frozen=True)
class InputRange:
    """The values that a network's inputs may have, both ends included.

    Attributes:
        low: smallest value.
        high: largest value; [0, 1] are pixels divided by 255.

    Raises:
        InputError: no finite numbers, or ``low`` is not below ``high``.

    Example:
        >>> print(InputRange(), InputRange(0, 255), InputRange.of((-1, 1)))
        [0, 1] [0, 255] [-1, 1]
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        numbers = all(isinstance(end, int | float | np.number) for end in (self.low, self.high))
        if not numbers or not -math.inf < self.low < self.high < math.inf:
            raise InputError(
                f"the input range is ({self.low!r}, {self.high!r}), but two finite numbers are "
                "expected, the smaller one first, such as (0, 255)."
            )
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"

    @classmethod
    def of(cls, value: Any) -> "InputRange":
        """The range of a pair of numbers; a range is returned as it is.

        Raises:
            InputError: anything else.
        """
        if isinstance(value, InputRange):
            return value
        try:
            low, high = value
        except (TypeError, ValueError):
            raise InputError(
                f"the input range is {value!r}, but a pair of numbers is expected, such as "
                "(0, 255)."
            ) from None
        return cls(low, high)

    @property
    def noise(self) -> float:
        """How far float32 values may lie outside: a few roundings."""
        return _NOISE * max(abs(self.low), abs(self.high))

    def holds(self, values: npt.NDArray[np.float32]) -> bool:
        """Whether all values lie inside, up to float32 noise; NaN does not."""
        if not values.size:
            return True
        inside = values.min() >= self.low - self.noise and values.max() <= self.high + self.noise
        return bool(inside)

    def spread(self, unit: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Numbers of [0, 1] stretched over the range, float32; unchanged for [0, 1]."""
        if (self.low, self.high) == (0.0, 1.0):
            return unit.astype(np.float32, copy=False)
        return (self.low + unit.astype(np.float64) * (self.high - self.low)).astype(np.float32)


UNIT = InputRange()
"""[0, 1]: uint8 pixels divided by 255."""
