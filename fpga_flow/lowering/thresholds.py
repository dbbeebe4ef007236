"""THE definition of thresholds and ties.

An activation quantizer sees a value that is affine in an integer accumulator n:
``value / scale = gain * n + offset``, in float64 from the file's float32 parameters.
Its code is ``low + step * count(sign * n >= threshold)`` with, for the level l of each code
(``Quantizer.levels``; l = m - 1/2 for code m under rounding), sign = sign(gain) and

    threshold = smallest integer t with |gain| * t + offset above l

"above" includes equality where the level belongs to the upper code: for rounding half to even
where m is even, for floor and for the bipolar sign always, for ceil never.
Equality is decided on the real threshold r = (l - offset) / |gain|: where r lies within 1e-9
(relative to max(1, |r|)) of an integer, it *is* that integer, a tie. Hence parameters whose
decimal values do not fit float32 exactly still tie as meant, and nothing later ever rounds a
float: execution only compares integers.
A constant channel (gain 0) passes a level by the same rule applied to offset.

This is FINN's MultiThreshold (Umuroglu and Jahre, "Streamlined Deployment for Quantized Neural
Networks", 2017, section 3) with exact instead of float32 thresholds and with ties that follow
the Quant operator (half to even), not the comparison (half up).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.ir import FloatArray, IntArray
from fpga_flow.lowering.quantizers import Quantizer

BoolArray = npt.NDArray[np.bool_]
TIE = 1e-9


@dataclass(frozen=True)
class Folded(ShortRepr):
    """Thresholds of C channels and T levels.

    Attributes:
        integers: int64 (C, T), ascending, within [min, max + 1] of sign * n.
        signs: int64 (C,), ±1.
        real: float64 (C, T), the real thresholds r.
        live: bool (C, T), whether the accumulator range reaches the threshold: only there can
            float arithmetic disagree.
    """

    integers: IntArray
    signs: IntArray
    real: FloatArray
    live: BoolArray


def fold(
    quantizer: Quantizer,
    gain: FloatArray,
    offset: FloatArray,
    low: IntArray,
    high: IntArray,
    floor: FloatArray,
    ceiling: FloatArray,
) -> Folded:
    """Integer thresholds of a quantizer behind ``clip(gain * n + offset, floor, ceiling)``.

    Args:
        quantizer: gives levels and codes.
        gain: float64 (C,), step of value / scale for one accumulator step.
        offset: float64 (C,), value / scale at n = 0.
        low: int64 (C,), minimum of n.
        high: int64 (C,), maximum of n.
        floor: float64 (C,), lower clip (ReLU) of value / scale, or -inf.
        ceiling: float64 (C,), upper clip of value / scale, or inf.

    Returns:
        the thresholds on ``signs * n``.

    Example:
        >>> import numpy as np
        >>> two_bits = Quantizer(np.float32(1), 2, False, False, "ROUND", False)
        >>> one = np.ones(1)
        >>> fold(two_bits, one / 2, 0 * one, np.array([-9]), np.array([9]),
        ...      -np.inf * one, np.inf * one).integers  # n/2 = 1/2 and 5/2 round down to even
        array([[2, 3, 6]])
    """
    level, inclusive = quantizer.levels()
    signs = np.where(gain < 0, -1, 1)
    first = np.where(signs > 0, low, -high)[:, None]
    last = np.where(signs > 0, high, -low)[:, None]
    constant = (gain == 0)[:, None]
    slope = np.where(constant, 1.0, np.abs(gain)[:, None])
    real = (level - offset[:, None]) / slope

    nearest = np.rint(real)
    tie = np.abs(real - nearest) <= TIE * np.maximum(1.0, np.abs(nearest))
    exact = np.where(tie, nearest + ~inclusive, np.ceil(real))
    # Clipped in float first: a nearly dead channel's thresholds overflow int64.
    integers = np.clip(exact, first, last + 1).astype(np.int64)

    passed = _above(np.clip(offset, floor, ceiling), level, inclusive)  # of a constant channel
    always = np.where(constant, passed, _above(floor, level, inclusive))
    never = np.where(constant, ~passed, ~_above(ceiling, level, inclusive))
    integers = np.where(never, last + 1, np.where(always, first, integers))
    live = ~always & ~never & (real > first - 1) & (real < last + 1)
    # Two ties on one integer (codes finer than 1e-9 of a step) keep the order.
    return Folded(np.maximum.accumulate(integers, axis=1), signs, real, live)


def _above(value: FloatArray, level: FloatArray, inclusive: BoolArray) -> BoolArray:
    """(C, T): whether a constant value / scale passes each level, ties as defined above."""
    value = value[:, None]
    with np.errstate(invalid="ignore"):  # inf - inf is no tie
        tie = np.abs(value - level) <= TIE * np.maximum(1.0, np.abs(level))
    return np.where(tie, inclusive, value > level)
