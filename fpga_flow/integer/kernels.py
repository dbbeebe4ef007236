"""One PyTorch function a layer: integers in, integers out.

Convolutions are in ``convolution``, kernels that multiply bytes in ``int8``. Pools and sums are
maxima and sums of whole tensors, and products are matrix products: nothing here depends on how a
library walks over windows.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from fpga_flow.integer.convolution import compile_conv
from fpga_flow.integer.kernel import Kernel, bound, code_dtype, magnitude, named, pad, sum_dtype
from fpga_flow.integer.layout import channels_last
from fpga_flow.integer.rescale import Rescale, fit_rescale
from fpga_flow.lowering import Layer, reference
from fpga_flow.lowering.inputs import FloatImages, InputQuant
from fpga_flow.lowering.ir import (
    Add,
    Concat,
    Conv,
    MatMul,
    MaxPool,
    Pad,
    Pair,
    Reshape,
    SumPool,
    Threshold,
)

TABLE_LIMIT = 2**22
DEFINED = "int64"
"""The kind of a layer's definition."""


def compile_input(entry: InputQuant) -> Kernel:
    """Images to codes in what carries them, as ``entry.codes`` computes them."""
    quantizer, dtype = entry.quantizer, code_dtype(entry)
    if quantizer.bipolar or quantizer.rounding != "ROUND":
        return Kernel("input", lambda images: torch.from_numpy(entry.codes(images)).to(dtype))

    def run(images: FloatImages) -> Tensor:
        for step in entry.preamble:
            images = step(images)
        ratio = torch.from_numpy(images / quantizer.scale)  # a new array: the images stay
        codes = ratio.clamp_(quantizer.low, quantizer.high).round_().to(dtype)
        return codes.reshape(codes.shape[0], *entry.shape)

    return Kernel("input", run)


def compile_layer(layer: Layer, sources: Sequence[Layer], batch: int) -> Kernel:
    """The function of a layer; ``sources`` write its inputs, ``batch`` is the largest batch.

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
        case Concat():
            return _concat(layer)
        case Pad():
            return _pad_layer(layer)
        case Reshape():
            return Kernel("view", lambda x: x.reshape(x.shape[0], *layer.shape))
        case _:
            raise TypeError(f"no kernel for {type(layer).__name__}")


def defined(layer: Layer | InputQuant) -> Kernel:
    """The layer's int64 definition: slow, and right by definition."""
    if isinstance(layer, InputQuant):
        entry = layer
        return Kernel(DEFINED, lambda x: torch.from_numpy(entry.codes(x)).to(torch.float64))

    def run(*inputs: Tensor) -> Tensor:
        values = [x.to(torch.int64).numpy() for x in inputs]
        return torch.from_numpy(reference.run(layer, values)).to(torch.float64)

    return Kernel(DEFINED, run)


def compile_threshold(layer: Threshold, source: Layer) -> Kernel:
    """A multiply-add where one is exact; else a table of the thresholds' range, or a search."""
    for dtype in (np.float32, np.float64):
        rescale = fit_rescale(layer, source, dtype)
        if rescale is not None:
            return rescaling(layer, rescale)
    return tabulated(layer, source) or searched(layer)


def rescaling(layer: Threshold, rescale: Rescale) -> Kernel:
    """``clip(rint(n * slope + offset))``."""
    slope, offset = torch.from_numpy(rescale.slope), torch.from_numpy(rescale.offset)
    dtype = code_dtype(layer)

    def run(x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        scaled = (x.to(slope.dtype) * slope).add_(offset).round_()
        codes = scaled.clamp_(rescale.low, rescale.high).to(dtype)
        return codes.permute(0, 3, 1, 2) if x.ndim == 4 else codes

    return Kernel(f"{named(slope.dtype)} multiply-add", run)


def tabulated(layer: Threshold, source: Layer) -> Kernel | None:
    """A look-up table over the range in which thresholds lie; None where it is too large."""
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
        return None

    # Row c of the table: codes of below[c], below[c] + 1, ...; beyond ends[1] never read.
    inputs = below + np.arange(width)[:, None]
    codes = torch.from_numpy(reference.run(layer, [inputs]).T.copy())
    table = codes.to(code_dtype(layer)).reshape(-1)
    # Wide enough for every input and every index: bytes and their differences would wrap.
    reach = max(int(np.abs(m).max()), TABLE_LIMIT) + TABLE_LIMIT
    index = torch.int32 if reach < 2**31 else torch.int64
    minimum, maximum = (torch.from_numpy(end.copy()).to(index) for end in ends)
    start = torch.from_numpy(np.arange(len(below)) * width).to(index) - minimum

    def run(x: Tensor) -> Tensor:
        # NHWC, so that channels are the last axis; no copy for channels_last tensors.
        x = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        at = x.to(index).clamp(minimum, maximum).add_(start)
        codes = table.index_select(0, at.reshape(-1)).reshape(x.shape)
        return codes.permute(0, 3, 1, 2) if x.ndim == 4 else codes

    return Kernel("table", run)


def searched(layer: Threshold) -> Kernel:
    """Binary search, for any range."""
    dtype = code_dtype(layer)
    thresholds = torch.from_numpy(layer.thresholds.copy()).to(torch.float64)
    signs = torch.from_numpy(layer.signs.copy()).to(torch.float64)[:, None]

    def run(x: Tensor) -> Tensor:
        by_channel = x.transpose(0, 1)
        rows = (by_channel.reshape(len(signs), -1).to(torch.float64) * signs).contiguous()
        count = torch.searchsorted(thresholds, rows, right=True)
        codes = (layer.base + layer.step * count).to(dtype)
        return channels_last(codes.reshape(by_channel.shape).transpose(0, 1))

    return Kernel("search", run)


def _matmul(layer: MatMul, source: Layer) -> Kernel:
    dtype = sum_dtype(layer, bound(layer, source))
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    return Kernel(named(dtype), lambda x: x.to(dtype) @ weight)


def _max_pool(layer: MaxPool) -> Kernel:
    """Rows first, then columns; maxima of strided views, which any dtype has."""
    signs = None
    if (layer.signs < 0).any():
        signs = torch.from_numpy(layer.signs.copy()).to(torch.float32)[:, None, None]

    def run(x: Tensor) -> Tensor:
        x = x if signs is None else x * signs
        lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        x = pad(x, layer.pads, lowest)
        for axis in (2, 3):
            views = _strided(x, axis, layer.kernel, layer.strides, layer.dilations)
            x = reduce(torch.maximum, views)
        return (x if signs is None else x * signs).reshape(x.shape[0], *layer.shape)

    return Kernel("maximum", run)


def _strided(x: Tensor, axis: int, kernel: Pair, strides: Pair, dilations: Pair) -> list[Tensor]:
    """For each place of a window, its values along ``axis``."""
    places, stride, dilation = (pair[axis - 2] for pair in (kernel, strides, dilations))
    span = x.shape[axis] - dilation * (places - 1)
    views = (x.narrow(axis, place * dilation, span) for place in range(places))
    every = (slice(None),) * axis + (slice(None, None, stride),)
    return [view[every] for view in views]


def _sum_pool(layer: SumPool) -> Kernel:
    """Rows first, then columns, as `_max_pool`."""
    dtype = sum_dtype(layer, int(np.maximum(-layer.low, layer.high).max()))
    factors = None
    if (layer.factors > 1).any():
        factors = torch.from_numpy(layer.factors.copy()).to(dtype)

    def run(x: Tensor) -> Tensor:
        x = pad(x.to(dtype), layer.pads, 0.0)
        for axis in (2, 3):
            x = reduce(torch.add, _strided(x, axis, layer.kernel, layer.strides, (1, 1)))
        return (x if factors is None else x * factors).reshape(x.shape[0], *layer.shape)

    return Kernel(named(dtype), run)


def _add(layer: Add, sources: Sequence[Layer]) -> Kernel:
    total = sum(
        (magnitude(s) << shift).max() for s, shift in zip(sources, layer.shifts, strict=True)
    )
    dtype = sum_dtype(layer, int(total))
    factors = [
        torch.from_numpy(2**shift).to(dtype).reshape(-1, *[1] * (len(layer.shape) - 1))
        for shift in layer.shifts
    ]
    return Kernel(named(dtype), lambda a, b: a.to(dtype) * factors[0] + b.to(dtype) * factors[1])


def _concat(layer: Concat) -> Kernel:
    dtype = _carrier(layer)
    shifted = bool(layer.shifts.any())
    factors = torch.from_numpy(2**layer.shifts).reshape(-1, *[1] * (len(layer.shape) - 1))

    def run(*branches: Tensor) -> Tensor:
        joined = torch.cat([branch.to(dtype) for branch in branches], dim=1)
        return joined * factors.to(dtype) if shifted else joined

    return Kernel(f"{named(dtype)} copy", run)


def _pad_layer(layer: Pad) -> Kernel:
    dtype = _carrier(layer)
    return Kernel(f"{named(dtype)} copy", lambda x: pad(x.to(dtype), layer.pads, layer.fill))


def _carrier(layer: Layer) -> torch.dtype:
    """Bytes where they hold a layer's integers, else a float format that does."""
    dtype = code_dtype(layer)
    limit = int(np.maximum(-layer.low, layer.high).max())
    return sum_dtype(layer, limit) if dtype == torch.float32 else dtype
