"""Sliding windows in the numbers that FINN's generator takes."""

from dataclasses import dataclass, replace

import numpy as np

from fpga_flow.lowering.ir import Conv, IntArray, MaxPool, SumPool


@dataclass(frozen=True)
class Axis:
    """One axis of a sliding window, with the numbers FINN takes.

    The kernel's first ``skipped`` rows see nothing but padding and are left out; the others come
    ``spread`` rows apart, with weights of 0 between and behind them.
    """

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int
    skipped: int = 0
    spread: int = 1

    @property
    def reach(self) -> int:
        """Pixels a window spans."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def padded(self) -> int:
        """Pixels with padding."""
        return self.size + self.before + self.after

    @property
    def out(self) -> int:
        """Windows along the axis."""
        return (self.padded - self.reach) // self.stride + 1

    @property
    def trivial(self) -> bool:
        """Whether every pixel is a window."""
        return (self.kernel, self.stride, self.before, self.after) == (1, 1, 0, 0)

    @property
    def whole(self) -> bool:
        """Whether the only window is all there is."""
        return self.kernel == self.padded == self.size


def axes(layer: Conv | MaxPool | SumPool, shape: tuple[int, ...]) -> tuple[Axis, Axis]:
    """The window's axes (height, width) of a layer that reads a map of ``shape``."""
    kernel = layer.weight.shape[2:] if isinstance(layer, Conv) else layer.kernel

    def axis(i: int) -> Axis:
        dilation = 1
        if not isinstance(layer, SumPool) and kernel[i] > 1:
            dilation = layer.dilations[i]
        pads = layer.pads[i], layer.pads[i + 2]
        return _alone(Axis(shape[1 + i], kernel[i], layer.strides[i], *pads, dilation))

    high, wide = axis(0), axis(1)
    # FINN picks single pixels, but its counters need three of them along an axis.
    picks = high.kernel == wide.kernel == 1 and max(high.out, wide.out) > 2
    if isinstance(layer, MaxPool) or picks:
        return high, wide
    return _without_gaps(high), _without_gaps(wide)


def _alone(axis: Axis) -> Axis:
    """A single window in the numbers that FINN's generator takes."""
    if axis.out > 1:
        return axis
    row, rest = divmod(axis.before, axis.dilation)
    if axis.size == 1 and rest == 0 and row < axis.kernel:
        # On one pixel: the other rows of the kernel see nothing but padding.
        return Axis(1, 1, 1, 0, 0, 1, skipped=row)
    if axis.stride <= axis.kernel:
        return axis
    # FINN wants strides within the map; the least that leaves one window.
    return replace(axis, stride=axis.padded - axis.reach + 1)


def _without_gaps(axis: Axis) -> Axis:
    """A kernel that reaches to the next window: FINN leaves out no pixels in between."""
    if axis.stride <= axis.reach:
        return axis
    missing = max(0, axis.out * axis.stride - axis.padded)
    return replace(
        axis,
        kernel=axis.stride,
        after=axis.after + missing,
        dilation=1,
        spread=axis.dilation,
    )


def weights_along(weight: IntArray, high: Axis, wide: Axis) -> IntArray:
    """Weights (out, in / groups, kh, kw) with the rows and columns that the axes ask for."""
    for dimension, axis in ((2, high), (3, wide)):
        rows = np.moveaxis(weight, dimension, 0)[axis.skipped :]
        kept = rows[: 1 + (axis.kernel - 1) // axis.spread]
        result = np.zeros((axis.kernel, *rows.shape[1:]), dtype=np.int64)
        result[:: axis.spread][: len(kept)] = kept
        weight = np.moveaxis(result, 0, dimension)
    return weight


def depthwise_windows(layer: Conv, shape: tuple[int, ...]) -> bool:
    """Whether a convolution of a map of ``shape`` becomes FINN's depthwise unit.

    One factor a channel and no window is a dense layer: the unit needs a generator in front. So is
    a convolution of other groups, with weights of 0 between them.
    """
    apart = 1 < layer.groups == shape[0] == layer.shape[0]
    return apart and not all(axis.trivial for axis in axes(layer, shape))
