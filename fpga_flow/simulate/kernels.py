"""One PyTorch function a layer: integers in, integers out.

Codes of up to 8 bits travel as bytes, sums as floating-point numbers: float32 where every partial
sum stays below 2**24, float64 below 2**53. There each product and each sum is an integer that the
format holds, so results are exact in any order of summation. Only algorithms that transform their
operands (Winograd, FFT) would break that, so every convolution is compared with int64 arithmetic
on extreme inputs once, and unfolded into a matrix product where it differs. Kernels that multiply
bytes are in ``int8``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from divqat_brevitas.errors import InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering import Layer, reference
from fpga_flow.lowering.inputs import FloatImages, InputQuant
from fpga_flow.lowering.ir import (
    Add,
    Conv,
    IntArray,
    MatMul,
    MaxPool,
    Pads,
    Pair,
    Reshape,
    SumPool,
    Threshold,
)
from fpga_flow.simulate.rescale import EXACT, Rescale, fit_rescale

TABLE_LIMIT = 2**22
_CHECKED_CHANNELS = 16


@dataclass(frozen=True)
class Kernel(ShortRepr):
    """A layer's function.

    Attributes:
        kind: what computes it, such as "float32" or "table": shown to users.
        run: tensors of integers (N, ...) to a tensor of integers.
    """

    kind: str
    run: Callable[..., Tensor]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Execute it."""
        return self.run(*inputs)


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


def compile_input(entry: InputQuant) -> Callable[[FloatImages], Tensor]:
    """Images to codes in what carries them, as ``entry.codes`` computes them."""
    quantizer, dtype = entry.quantizer, code_dtype(entry)
    if quantizer.bipolar or quantizer.rounding != "ROUND":
        return lambda images: torch.from_numpy(entry.codes(images)).to(dtype)

    def run(images: FloatImages) -> Tensor:
        for step in entry.preamble:
            images = step(images)
        ratio = torch.from_numpy(images / quantizer.scale)  # a new array: the images stay
        return ratio.clamp_(quantizer.low, quantizer.high).round_().to(dtype)

    return run


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
            return Kernel("view", lambda x: x.reshape(len(x), *layer.shape))
        case _:
            raise TypeError(f"no kernel for {type(layer).__name__}")


def compile_conv(layer: Conv, source: Layer, batch: int) -> Kernel:
    """A convolution, verified against int64 arithmetic at ``batch`` images and at one."""
    dtype = _dtype(layer, bound(layer, source))
    direct = direct_conv(layer, dtype)
    right = all(agrees(direct, [layer], source, dtype, count) for count in {batch, 1})
    return direct if right else unfolded_conv(layer, dtype)


def direct_conv(layer: Conv, dtype: torch.dtype) -> Kernel:
    """The library's convolution."""
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    top, left, bottom, right = layer.pads
    padding = (top, left) if (top, left) == (bottom, right) else None

    def run(x: Tensor) -> Tensor:
        x = channels_last(x.to(dtype))
        if padding is None:
            x = pad(x, layer.pads, 0.0)
        return F.conv2d(
            x,
            weight,
            stride=layer.strides,
            padding=padding or 0,
            dilation=layer.dilations,
            groups=layer.groups,
        )

    return Kernel(_named(dtype), run)


def unfolded_conv(layer: Conv, dtype: torch.dtype) -> Kernel:
    """The convolution as one matrix product a group: slower, and exact with any BLAS."""
    out, per_group, *_ = layer.weight.shape
    kernel = layer.weight.shape[2], layer.weight.shape[3]
    rows = per_group * kernel[0] * kernel[1]
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    weight = weight.reshape(1, layer.groups, out // layer.groups, rows)

    def run(x: Tensor) -> Tensor:
        padded = pad(x.to(dtype), layer.pads, 0.0)
        columns = F.unfold(padded, kernel, dilation=layer.dilations, stride=layer.strides)
        product = weight @ columns.reshape(len(x), layer.groups, rows, -1)
        return product.reshape(len(x), *layer.shape)

    return Kernel(f"{_named(dtype)}, unfolded", run)


def agrees(
    kernel: Kernel,
    chain: Sequence[Conv | MatMul | Threshold],
    source: Layer,
    dtype: torch.dtype,
    count: int,
) -> bool:
    """Whether ``kernel`` equals a chain of layers on an input of random extremes.

    Args:
        kernel: computes the whole chain.
        chain: a Conv or MatMul, then perhaps its Threshold.
        source: writes the chain's input.
        dtype: of the tensor that carries it.
        count: equal inputs in the batch.
    """
    rng = np.random.default_rng(0)
    low, high = (e.reshape(-1, *[1] * (len(source.shape) - 1)) for e in (source.low, source.high))
    image = np.where(rng.random(source.shape) < 0.5, low, high)[None]
    # Whole groups are cheap; of an ungrouped convolution some channels tell.
    some = np.arange(chain[0].shape[0])
    if not (isinstance(chain[0], Conv) and chain[0].groups > 1):
        some = rng.permutation(some)[:_CHECKED_CHANNELS]
    expected = image
    for layer in chain:
        expected = reference.run(_narrowed(layer, some), [expected])
    batch = torch.from_numpy(image).to(dtype).repeat(count, *[1] * len(source.shape))
    result = kernel(channels_last(batch))[[0, -1]].to(torch.int64).numpy()[:, some]
    return bool((result == expected).all())


def _narrowed(layer: Conv | MatMul | Threshold, some: IntArray) -> Layer:
    """The layer with ``some`` of its output channels alone."""
    match layer:
        case Conv():
            return replace(layer, weight=layer.weight[some])
        case MatMul():
            return replace(layer, weight=layer.weight[:, some])
        case Threshold():
            return replace(layer, thresholds=layer.thresholds[some], signs=layer.signs[some])


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

    return Kernel(f"{_named(slope.dtype)} multiply-add", run)


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
    start = torch.from_numpy(np.arange(len(below)) * width)
    minimum, maximum = (torch.from_numpy(end.copy()) for end in ends)

    def run(x: Tensor) -> Tensor:
        # NHWC, so that channels are the last axis; no copy for channels_last tensors.
        x = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        at = x.clamp(minimum.to(x.dtype), maximum.to(x.dtype)) - minimum.to(x.dtype)
        index = at.to(torch.int32).add_(start.to(torch.int32))
        codes = table.index_select(0, index.reshape(-1)).reshape(x.shape)
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


def code_dtype(layer: Layer) -> torch.dtype:
    """What carries a layer's codes: bytes where they fit, else float32."""
    low, high = int(layer.low.min()), int(layer.high.max())
    if low >= 0 and high <= 255:
        return torch.uint8
    return torch.int8 if low >= -128 and high <= 127 else torch.float32


def channels_last(x: Tensor) -> Tensor:
    """In the memory order in which convolution, pooling and look-up are fastest."""
    if x.ndim != 4:
        return x.contiguous()
    return x.contiguous(memory_format=torch.channels_last)


def _matmul(layer: MatMul, source: Layer) -> Kernel:
    dtype = _dtype(layer, bound(layer, source))
    weight = torch.from_numpy(layer.weight.copy()).to(dtype)
    return Kernel(_named(dtype), lambda x: x.to(dtype) @ weight)


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
        return x if signs is None else x * signs

    return Kernel("maximum", run)


def _strided(x: Tensor, axis: int, kernel: Pair, strides: Pair, dilations: Pair) -> list[Tensor]:
    """For each place of a window, its values along ``axis``."""
    places, stride, dilation = (pair[axis - 2] for pair in (kernel, strides, dilations))
    span = x.shape[axis] - dilation * (places - 1)
    views = (x.narrow(axis, place * dilation, span) for place in range(places))
    every = (slice(None),) * axis + (slice(None, None, stride),)
    return [view[every] for view in views]


def _sum_pool(layer: SumPool) -> Kernel:
    dtype = _dtype(layer, int(np.maximum(-layer.low, layer.high).max()))

    def run(x: Tensor) -> Tensor:
        x = pad(x.to(dtype), layer.pads, 0.0)
        total = F.avg_pool2d(x, layer.kernel, layer.strides, divisor_override=1)
        return total.reshape(len(x), *layer.shape)

    return Kernel(_named(dtype), run)


def _add(layer: Add, sources: Sequence[Layer]) -> Kernel:
    total = sum(
        (_magnitude(s) << shift).max() for s, shift in zip(sources, layer.shifts, strict=True)
    )
    dtype = _dtype(layer, int(total))
    factors = [
        torch.from_numpy(2**shift).to(dtype).reshape(-1, *[1] * (len(layer.shape) - 1))
        for shift in layer.shifts
    ]
    return Kernel(_named(dtype), lambda a, b: a.to(dtype) * factors[0] + b.to(dtype) * factors[1])


def pad(x: Tensor, pads: Pads, value: float) -> Tensor:
    """``value`` around the images."""
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def _magnitude(source: Layer) -> IntArray:
    """The largest absolute value of each input channel."""
    return np.maximum(np.abs(source.low), np.abs(source.high))


def bound(layer: Conv | MatMul, source: Layer) -> int:
    """No partial sum of any output exceeds this."""
    groups = layer.groups if isinstance(layer, Conv) else 1
    weight = layer.weight if isinstance(layer, Conv) else layer.weight.T  # (out, in / groups, ...)
    group = np.arange(len(weight)) // (len(weight) // groups)
    inputs = _magnitude(source).reshape(groups, -1)[group]
    sums = np.abs(weight).reshape(*weight.shape[:2], -1).sum(axis=2)
    return int((sums * inputs).sum(axis=1).max())


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(layer: Layer, limit: int) -> torch.dtype:
    if limit < EXACT:
        return torch.float32
    if limit < 2**53:
        return torch.float64
    raise InputError(
        f"{layer.op} {layer.name!r} can sum up to {limit}, more than 2**53. Use fewer bits."
    )
