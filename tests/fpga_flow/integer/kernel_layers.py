"""Layers for kernel tests, and integers at the limits of their ranges."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpga_flow.integer.kernel import Kernel, exact_arithmetic
from fpga_flow.integer.layout import channels_last
from fpga_flow.lowering import Layer
from fpga_flow.lowering.ir import Conv, Reshape, Threshold

Integers = NDArray[np.int64]


def common(shape: tuple[int, ...], low: Any = -8, high: Any = 7) -> dict[str, Any]:
    channels = shape[0]
    return {
        "name": "layer",
        "source": "",
        "inputs": ("x",),
        "output": "y",
        "shape": shape,
        "scale": np.ones(()),
        "bias": np.zeros(()),
        "low": np.broadcast_to(np.asarray(low, dtype=np.int64), (channels,)),
        "high": np.broadcast_to(np.asarray(high, dtype=np.int64), (channels,)),
        "bits": 4,
    }


def source(shape: tuple[int, ...], low: Any = -8, high: Any = 7) -> Layer:
    return Reshape(**common(shape, low, high))


def extremes(layer: Layer, count: int, seed: int = 0) -> Integers:
    """Integers of a layer's range: half of them its ends."""
    rng = np.random.default_rng(seed)
    low, high = (e.reshape(-1, *[1] * (len(layer.shape) - 1)) for e in (layer.low, layer.high))
    inside = rng.integers(low, high + 1, (count, *layer.shape))
    ends = np.where(rng.random(inside.shape) < 0.5, low, high)
    return np.where(rng.random(inside.shape) < 0.5, inside, ends)


def execute(kernel: Kernel, *inputs: Integers) -> Integers:
    with exact_arithmetic():
        tensors = [channels_last(torch.from_numpy(x).to(torch.float64)) for x in inputs]
        return kernel(*tensors).to(torch.int64).numpy()


def conv(
    rng: np.random.Generator, shape: tuple[int, ...], limit: int = 8, **parameters: Any
) -> Conv:
    p = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1, **parameters}
    out, kernel = 6, (3, 2)
    (h, w), (top, left, bottom, right) = shape[1:], p["pads"]
    size = [
        (n + pad - d * (k - 1) - 1) // s + 1
        for n, pad, d, k, s in zip(
            (h, w), (top + bottom, left + right), p["dilations"], kernel, p["strides"], strict=True
        )
    ]
    weight = rng.integers(-limit, limit, (out, shape[0] // p["groups"], *kernel))
    return Conv(**common((out, *size)), weight=weight, weight_bits=4, **p)


def threshold(rng: np.random.Generator, before: Layer, count: int, step: int = 1) -> Threshold:
    """Random thresholds, some never and some always passed, signs of both kinds."""
    signs = rng.choice([-1, 1], before.shape[0])
    ends = np.sort(np.stack([signs * before.low, signs * before.high]), axis=0)[:, :, None]
    thresholds = np.sort(rng.integers(ends[0], ends[1] + 2, (before.shape[0], count)), axis=1)
    return Threshold(
        **common(before.shape), thresholds=thresholds, signs=signs, base=-count // 2, step=step
    )


def with_range(layer: Any, before: Layer) -> Any:
    """A Conv or MatMul that says which sums it can reach."""
    weight = layer.weight if isinstance(layer, Conv) else layer.weight.T
    groups = layer.groups if isinstance(layer, Conv) else 1
    group = np.arange(len(weight)) // (len(weight) // groups)
    low, high = (end.reshape(groups, -1)[group] for end in (before.low, before.high))
    extra = [1] * (weight.ndim - 2)
    low, high = (end.reshape(*end.shape, *extra) for end in (low, high))
    axes = tuple(range(1, weight.ndim))
    # Padding is 0, so 0 is among the inputs.
    first, second = weight * np.minimum(low, 0), weight * np.maximum(high, 0)
    return replace(
        layer,
        low=np.minimum(first, second).sum(axis=axes),
        high=np.maximum(first, second).sum(axis=axes),
    )


def quantizer(
    rng: np.random.Generator, before: Layer, count: int, base: int = 0, reach: float = 0.7
) -> Threshold:
    """Thresholds of a quantizer behind an affine: equal steps a channel, rounded up to integers.

    ``reach`` of a channel's range is where they lie: with more than 1 some never pass.
    """
    signs = rng.choice([-1, 1], before.shape[0])
    ends = np.sort(np.stack([signs * before.low, signs * before.high]), axis=0).astype(float)
    width = ends[1] - ends[0] + 1
    start = ends[0] + width * rng.uniform(-0.1, 0.3, len(signs))
    real = start[:, None] + width[:, None] * reach * np.arange(1, count + 1) / (count + 1)
    thresholds = np.ceil(real + rng.uniform(0.01, 0.99, (len(signs), 1))).astype(np.int64)
    limits = ends.astype(np.int64)[:, :, None]
    return Threshold(
        **common(before.shape, base, base + count),
        thresholds=np.clip(thresholds, limits[0], limits[1] + 1),
        signs=signs,
        base=base,
        step=1,
    )
