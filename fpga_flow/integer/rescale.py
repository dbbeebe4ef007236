"""Thresholds as one multiply-add and one rounding: ``code = clip(rint(n * slope + offset))``.

An activation quantizer's thresholds lie at equal distances but for their rounding to integers, so
a line separates the integers below each from those above. Kernels round ``n * slope`` and the sum
to their format, in one step (fused) or two; both are monotone in ``n``. So the codes are right for
every integer once they are right on both sides of every threshold, and `fit_rescale` checks that
in both arithmetics.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering import Layer
from fpga_flow.lowering.ir import FloatArray, IntArray, Threshold

Line = npt.NDArray[Any]

EXACT = 2**24
"""Float32 holds every integer below."""

_SLOPES = 1e-9, 1e3
_GOLDEN = (5**0.5 - 1) / 2
_ITERATIONS = 70  # of the golden-section search: the slope is known to 1e-13 of itself then


@dataclass(frozen=True)
class Rescale(ShortRepr):
    """``clip(rint(n * slope + offset), low, high)``, exact in the format of its arrays.

    Attributes:
        slope: float32 or float64 (C,).
        offset: as ``slope``.
        low: the smallest code.
        high: the largest code.
    """

    slope: Line
    offset: Line
    low: int
    high: int


def fit_rescale(
    layer: Threshold, source: Layer, dtype: npt.DTypeLike = np.float32
) -> Rescale | None:
    """The line of each channel with the widest margin, or None where that is not exact.

    Args:
        layer: the thresholds.
        source: writes the integers that they are compared with.
        dtype: of the arithmetic, float32 or float64; in float64 only with two roundings.

    Example:
        >>> from fpga_flow.lowering import lower
        >>> network = lower("model.onnx")
        >>> fit_rescale(network.layer("Quant_5"), network.layer("Conv_1"))
        Rescale(slope=<float32 (16,)>, offset=<float32 (16,)>, low=0, high=15)
    """
    ends = np.sort(np.stack([layer.signs * source.low, layer.signs * source.high]), axis=0)
    first, last = ends[0][:, None], ends[1][:, None]
    single = np.dtype(dtype) == np.float32
    if max(-int(first.min()), int(last.max())) >= (EXACT if single else 2**53):
        return None
    # `above` must reach the upper code of each threshold, `below` must not leave the lower one.
    passed, spared = layer.thresholds <= last, layer.thresholds > first
    above, below = np.maximum(layer.thresholds, first), np.minimum(layer.thresholds - 1, last)
    steps = layer.thresholds.shape[1]
    upper = layer.base + layer.step * np.arange(1, steps + 1) - 0.5
    lower = upper - layer.step + 1

    floors, ceilings = np.where(passed, upper, -np.inf), np.where(spared, lower, np.inf)

    def offsets(slope: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The least and the greatest that are right with that slope, (C,) each."""
        least, greatest = floors - slope[:, None] * above, ceilings - slope[:, None] * below
        return least.max(axis=1, initial=-np.inf), greatest.min(axis=1, initial=np.inf)

    constant = ~(passed & spared).any(axis=1)
    slope = np.where(constant, 0.0, _widest(offsets, len(constant)))
    least, greatest = offsets(slope)
    found = np.where(constant, 0.0, least) / 2 + np.where(constant, 0.0, greatest) / 2
    start = np.where(constant, layer.base + layer.step * (~spared).sum(axis=1), found)

    steep, offset = slope.astype(dtype), start.astype(dtype)
    for value in (_two_roundings, _one_rounding)[: 2 if single else 1]:
        reached = value(above, steep[:, None], offset[:, None]) > upper
        kept = value(below, steep[:, None], offset[:, None]) < lower
        if not ((reached | ~passed).all() and (kept | ~spared).all()):
            return None
    signed = (steep * layer.signs).astype(dtype)
    return Rescale(signed, offset, layer.base, layer.base + layer.step * steps)


def _widest(
    offsets: Callable[[FloatArray], tuple[FloatArray, FloatArray]], channels: int
) -> FloatArray:
    """The slope of each channel that leaves its offset most room: golden section.

    The room is a concave function of the slope, so it has one peak in the slope's logarithm too.
    """

    def room(logarithm: FloatArray) -> FloatArray:
        least, greatest = offsets(np.exp(logarithm))
        with np.errstate(invalid="ignore"):  # inf - inf, in channels that are constant
            return greatest - least

    low, high = (np.full(channels, np.log(end)) for end in _SLOPES)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    room_left, room_right = room(left), room(right)
    for _ in range(_ITERATIONS):
        rising = room_left < room_right
        low, high = np.where(rising, left, low), np.where(rising, high, right)
        # One of the two points inside stays; the golden ratio puts the other beside it.
        span = _GOLDEN * (high - low)
        left, right = np.where(rising, right, high - span), np.where(rising, low + span, left)
        new = room(np.where(rising, right, left))
        room_left, room_right = np.where(rising, room_right, new), np.where(rising, new, room_left)
    peak: FloatArray = np.exp((low + high) / 2)
    return peak


def _two_roundings(n: IntArray, slope: Line, offset: Line) -> Line:
    product: Line = n.astype(slope.dtype) * slope
    return product + offset


def _one_rounding(n: IntArray, slope: Line, offset: Line) -> Line:
    # The product is exact in float64: 24 bits times 24.
    exact: FloatArray = n.astype(np.float64) * slope + offset
    return exact.astype(slope.dtype)
