"""Each layer in plain int64 NumPy: the definition that engines are tested against."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fpga_flow.lowering.ir import (
    Add,
    Concat,
    Conv,
    IntArray,
    Layer,
    MatMul,
    MaxPool,
    Pad,
    Pads,
    Pair,
    Reshape,
    SumPool,
    Threshold,
)


def run(layer: Layer, inputs: Sequence[IntArray]) -> IntArray:
    """Integers (N, *layer.shape), int64, of a layer for its inputs (N, ...)."""
    result: IntArray = _RULES[type(layer)](layer, *inputs)
    return result


def conv(layer: Conv, x: IntArray) -> IntArray:
    """2-D cross-correlation, group by group."""
    kernel = layer.weight.shape[2], layer.weight.shape[3]
    view = _windows(x, kernel, layer.strides, layer.pads, layer.dilations, fill=0)
    inputs = np.split(view, layer.groups, axis=1)
    weights = np.split(layer.weight, layer.groups, axis=0)
    parts = [
        np.tensordot(v, w, ((1, 4, 5), (1, 2, 3))) for v, w in zip(inputs, weights, strict=True)
    ]
    return np.concatenate(parts, axis=3).transpose(0, 3, 1, 2)


def threshold(layer: Threshold, n: IntArray) -> IntArray:
    """Codes: thresholds passed, counted channel by channel."""
    count = np.empty_like(n)
    for c, (row, sign) in enumerate(zip(layer.thresholds, layer.signs, strict=True)):
        count[:, c] = np.searchsorted(row, sign * n[:, c], side="right")
    codes: IntArray = layer.base + layer.step * count
    return codes


def _max_pool(layer: MaxPool, x: IntArray) -> IntArray:
    signs = layer.signs[:, None, None]
    lowest = np.iinfo(np.int64).min
    view = _windows(
        signs * x, layer.kernel, layer.strides, layer.pads, layer.dilations, fill=lowest
    )
    result: IntArray = signs * view.max(axis=(4, 5))
    return result.reshape(len(x), *layer.shape)


def _sum_pool(layer: SumPool, x: IntArray) -> IntArray:
    view = _windows(x, layer.kernel, layer.strides, layer.pads, (1, 1), fill=0)
    sums: IntArray = (layer.factors * view.sum(axis=(4, 5))).reshape(len(x), *layer.shape)
    return sums


def _matmul(layer: MatMul, x: IntArray) -> IntArray:
    result: IntArray = x @ layer.weight
    return result


def _add(layer: Add, a: IntArray, b: IntArray) -> IntArray:
    shifts = layer.shifts.reshape(2, -1, *[1] * (a.ndim - 2))
    total: IntArray = (a << shifts[0]) + (b << shifts[1])
    return total


def _concat(layer: Concat, *branches: IntArray) -> IntArray:
    joined = np.concatenate(branches, axis=1)
    shifted: IntArray = joined << layer.shifts.reshape(-1, *[1] * (joined.ndim - 2))
    return shifted


def _pad(layer: Pad, x: IntArray) -> IntArray:
    return _padded(x, layer.pads, layer.fill)


def _reshape(layer: Reshape, x: IntArray) -> IntArray:
    return x.reshape(len(x), *layer.shape)


def _padded(x: IntArray, pads: Pads, fill: int) -> IntArray:
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)


def _windows(
    x: IntArray, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair, fill: int
) -> IntArray:
    """All windows: a view (N, C, H', W', kh, kw) of the padded input."""
    padded = _padded(x, pads, fill)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    view = sliding_window_view(padded, spans, axis=(2, 3))
    windows: IntArray = view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return windows


_RULES: dict[type[Layer], Callable[..., Any]] = {
    Conv: conv,
    MatMul: _matmul,
    Threshold: threshold,
    MaxPool: _max_pool,
    SumPool: _sum_pool,
    Add: _add,
    Concat: _concat,
    Pad: _pad,
    Reshape: _reshape,
}
