"""One PyTorch function a layer: integers in, integers out, carried by floating-point tensors.

Float32 where every partial sum stays below 2**24, float64 below 2**53: there each product and
each sum is an integer that the format holds, so results are exact in any order of summation.
Only algorithms that transform their operands (Winograd, FFT) would break that, so every
convolution is compared with int64 arithmetic on extreme inputs once, and unfolded into a
matrix product where it differs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import Layer, reference
from fpga_flow.lowering.ir import (
    Add,
    Conv,
    IntArray,
    MatMul,
    MaxPool,
    Pads,
    Reshape,
    SumPool,
    Threshold,
)

Kernel = Callable[..., Tensor]
TABLE_LIMIT = 2**22
_CHECKED_CHANNELS = 16


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Switch off whatever would make float arithmetic of integers inexact, while inside.

    That is gradients, autocast, bfloat16 "precision" settings, and NNPACK (Winograd).
    """
    # Attributes that PyTorch's annotations do not know.
    onednn = [getattr(torch.backends.mkldnn, op) for op in ("conv", "matmul")]
    precisions = [op.fp32_precision for op in onednn]
    with (
        torch.inference_mode(),
        torch.autocast("cpu", enabled=False),
        torch.backends.nnpack.flags(enabled=False),
    ):
        try:
            for op in onednn:
                op.fp32_precision = "ieee"
            yield
        finally:
            for op, precision in zip(onednn, precisions, strict=True):
                op.fp32_precision = precision


def compile_layer(layer: Layer, sources: Sequence[Layer], batch: int) -> Kernel:
    """The function of a layer; ``sources`` write its inputs, ``batch`` is the usual batch size.

    Raises:
        InputError: sums of 2**53 and more.
    """
    match layer:
        case Conv():
            return compile_conv(layer, sources[0], batch)
        case MatMul():
            return _matmul(layer, sources[0])
        case Threshold():
            return compile_threshold(layer, sources[0])
        case MaxPool():
            return _max_pool(layer)
        case SumPool():
            return _sum_pool(layer)
        case Add():
            return _add(layer, sources)
        case Reshape():
            return lambda x: x.reshape(len(x), *layer.shape)
        case _:
            raise TypeError(f"no kernel for {type(layer).__name__}")


def compile_conv(layer: Conv, source: Layer, batch: int) -> Kernel:
    """A convolution, verified against int64 arithmetic at ``batch`` images and at one."""
    dtype = _dtype(layer, _bound(layer.weight, _magnitude(source), layer.groups))
    direct = direct_conv(layer, dtype)
    right = all(_agrees(direct, layer, source, dtype, count) for count in {batch, 1})
    return direct if right else unfolded_conv(layer, dtype)


def direct_conv(layer: Conv, dtype: torch.dtype) -> Kernel:
    """The library's convolution."""
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    top, left, bottom, right = layer.pads
    padding = (top, left) if (top, left) == (bottom, right) else None

    def run(x: Tensor) -> Tensor:
        x = x.to(dtype)
        if padding is None:
            x = _pad(x, layer.pads, 0.0)
        return F.conv2d(
            x,
            weight,
            stride=layer.strides,
            padding=padding or 0,
            dilation=layer.dilations,
            groups=layer.groups,
        )

    return run


def unfolded_conv(layer: Conv, dtype: torch.dtype) -> Kernel:
    """The convolution as one matrix product a group: slower, and exact with any BLAS."""
    out, per_group, *_ = layer.weight.shape
    kernel = layer.weight.shape[2], layer.weight.shape[3]
    rows = per_group * kernel[0] * kernel[1]
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    weight = weight.reshape(1, layer.groups, out // layer.groups, rows)

    def run(x: Tensor) -> Tensor:
        padded = _pad(x.to(dtype), layer.pads, 0.0)
        columns = F.unfold(padded, kernel, dilation=layer.dilations, stride=layer.strides)
        product = weight @ columns.reshape(len(x), layer.groups, rows, -1)
        return product.reshape(len(x), *layer.shape)

    return run


def _agrees(kernel: Kernel, layer: Conv, source: Layer, dtype: torch.dtype, count: int) -> bool:
    """Whether the kernel is exact on an image of random extremes, in a batch of ``count``."""
    rng = np.random.default_rng(0)
    low, high = (edge[:, None, None] for edge in (source.low, source.high))
    image = np.where(rng.random(source.shape) < 0.5, low, high)[None]
    # Whole groups are cheap; of an ungrouped convolution some channels tell.
    some = np.arange(len(layer.weight))
    if layer.groups == 1:
        some = rng.permutation(some)[:_CHECKED_CHANNELS]
    expected = reference.run(replace(layer, weight=layer.weight[some]), [image])
    batch = channels_last(torch.from_numpy(image).to(dtype).repeat(count, 1, 1, 1))
    result = kernel(batch)[[0, -1]].to(torch.int64).numpy()[:, some]
    return bool((result == expected).all())


def compile_threshold(layer: Threshold, source: Layer) -> Kernel:
    """A look-up table over the range in which thresholds lie, or a search where it is large."""
    # Outside [below, above] the code does not change any more.
    m = np.sort(np.stack([layer.signs * source.low, layer.signs * source.high]), axis=0)
    moving = (layer.thresholds > m[0][:, None]) & (layer.thresholds <= m[1][:, None])
    big = np.iinfo(np.int64).max
    first = np.where(moving, layer.thresholds, big).min(axis=1, initial=big) - 1
    last = np.where(moving, layer.thresholds, -big).max(axis=1, initial=-big)
    constant = ~moving.any(axis=1)
    first, last = np.where(constant, m[0], first), np.where(constant, m[0], last)
    ends = np.sort(np.stack([layer.signs * first, layer.signs * last]), axis=0)
    below, width = ends[0], int((ends[1] - ends[0]).max()) + 1
    if width * len(below) > TABLE_LIMIT:
        return _search(layer)

    # Row c of the table: codes of below[c], below[c] + 1, ...; beyond ends[1] never read.
    inputs = below + np.arange(width)[:, None]
    table = torch.from_numpy(reference.run(layer, [inputs]).T.copy()).to(torch.float32).reshape(-1)
    start = torch.from_numpy(np.arange(len(below)) * width)
    minimum, maximum = (torch.from_numpy(end.copy()) for end in ends)

    def run(x: Tensor) -> Tensor:
        # NHWC, so that channels are the last axis; no copy for channels_last tensors.
        x = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        at = x.clamp(minimum.to(x.dtype), maximum.to(x.dtype)) - minimum.to(x.dtype)
        index = at.to(torch.int32).add_(start.to(torch.int32))
        codes = table.index_select(0, index.reshape(-1)).reshape(x.shape)
        return codes.permute(0, 3, 1, 2) if x.ndim == 4 else codes

    return run


def _search(layer: Threshold) -> Kernel:
    thresholds = torch.from_numpy(layer.thresholds.copy()).to(torch.float64)
    signs = torch.from_numpy(layer.signs.copy()).to(torch.float64)[:, None]

    def run(x: Tensor) -> Tensor:
        by_channel = x.transpose(0, 1)
        rows = (by_channel.reshape(len(signs), -1).to(torch.float64) * signs).contiguous()
        count = torch.searchsorted(thresholds, rows, right=True)
        codes = (layer.base + layer.step * count).to(torch.float32)
        return channels_last(codes.reshape(by_channel.shape).transpose(0, 1))

    return run


def channels_last(x: Tensor) -> Tensor:
    """In the memory order in which convolution, pooling and look-up are fastest."""
    if x.ndim != 4:
        return x.contiguous()
    return x.contiguous(memory_format=torch.channels_last)


def _matmul(layer: MatMul, source: Layer) -> Kernel:
    dtype = _dtype(layer, _bound(layer.weight.T, _magnitude(source), 1))
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    return lambda x: x.to(dtype) @ weight


def _max_pool(layer: MaxPool) -> Kernel:
    signs = None
    if (layer.signs < 0).any():
        signs = torch.from_numpy(layer.signs.copy()).to(torch.float32)[:, None, None]

    def run(x: Tensor) -> Tensor:
        x = x if signs is None else x * signs
        x = _pad(x, layer.pads, -torch.inf)
        x = F.max_pool2d(x, layer.kernel, layer.strides, dilation=layer.dilations)
        return x if signs is None else x * signs

    return run


def _sum_pool(layer: SumPool) -> Kernel:
    dtype = _dtype(layer, int(np.maximum(-layer.low, layer.high).max()))

    def run(x: Tensor) -> Tensor:
        x = _pad(x.to(dtype), layer.pads, 0.0)
        total = F.avg_pool2d(x, layer.kernel, layer.strides, divisor_override=1)
        return total.reshape(len(x), *layer.shape)

    return run


def _add(layer: Add, sources: Sequence[Layer]) -> Kernel:
    bound = sum(
        (_magnitude(s) << shift).max() for s, shift in zip(sources, layer.shifts, strict=True)
    )
    dtype = _dtype(layer, int(bound))
    factors = [
        torch.from_numpy(2**shift).to(dtype).reshape(-1, *[1] * (len(layer.shape) - 1))
        for shift in layer.shifts
    ]
    return lambda a, b: a.to(dtype) * factors[0] + b.to(dtype) * factors[1]


def _pad(x: Tensor, pads: Pads, value: float) -> Tensor:
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def _magnitude(source: Layer) -> IntArray:
    """The largest absolute value of each input channel."""
    return np.maximum(np.abs(source.low), np.abs(source.high))


def _bound(weight: IntArray, magnitude: IntArray, groups: int) -> int:
    """No partial sum of any output exceeds this; ``weight`` is (out, in / groups, ...)."""
    group = np.arange(len(weight)) // (len(weight) // groups)
    inputs = magnitude.reshape(groups, -1)[group]
    sums = np.abs(weight).reshape(*weight.shape[:2], -1).sum(axis=2)
    return int((sums * inputs).sum(axis=1).max())


def _dtype(layer: Layer, bound: int) -> torch.dtype:
    if bound < 2**24:
        return torch.float32
    if bound < 2**53:
        return torch.float64
    raise InputError(
        f"{layer.op} {layer.name!r} can sum up to {bound}, more than 2**53. Use fewer bits."
    )
