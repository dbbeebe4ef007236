"""Convolutions and products of bytes by oneDNN (part of PyTorch), thresholds fused into them.

oneDNN multiplies unsigned by signed bytes, adds in int32 and, on its way out, multiplies by a
slope a channel, adds an offset, rounds to even and clips: ``rescale`` says when that is a
quantizer's thresholds, exactly. Signed codes enter with 128 added, as the zero-point that oneDNN
takes off again. A convolution of a tiny image is one product with all of it. Processors that do
not add four products at once (VNNI and its kin do) add pairs in int16, which saturates:
`saturates` asks the library itself, and layers that could reach that limit are then left to
floating point, and so are convolutions that are not plain (see ``convolution``). Every kernel
stands trial against int64 arithmetic before it is used.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fpga_flow.integer.convolution import Windows, normal_form
from fpga_flow.integer.kernel import Kernel, bound, code_dtype, pad
from fpga_flow.integer.layout import Layout, channels_last, in_rows
from fpga_flow.integer.rescale import EXACT, fit_rescale
from fpga_flow.integer.trial import agrees
from fpga_flow.lowering import Layer, reference
from fpga_flow.lowering.ir import Conv, MatMul, Threshold

_ZERO_POINT = 128  # of signed codes
_PAIR_LIMIT = 2**15
_PIXEL = 4  # input channels that a processor multiplies at once
# Weights of a convolution written out as one product: beyond, its zeros cost more than they save.
UNROLLED = 2**16


def compile_int8(
    layer: Conv | MatMul, threshold: Threshold | None, source: Layer, batch: int
) -> Kernel | None:
    """A layer, and the thresholds after it, in bytes; None where that would not be exact.

    Args:
        layer: adds.
        threshold: the only reader of its sums; with None the kernel gives the sums, in float32.
        source: writes the layer's input.
        batch: the largest number of images in a call.
    """
    try:
        if not _fits(layer, source):
            return None
        finish = _finish(layer, threshold)
        if finish is None:
            return None
        kind = "int8"
        if isinstance(layer, MatMul):
            run = _product(layer, finish, batch)
        elif unrolls(layer, source):
            kind, run = "unrolled int8", _unrolled(layer, finish, source, batch)
        else:
            windows = normal_form(layer, source)
            if not windows.is_plain:
                return None
            run = _conv(windows, finish, source, batch)
        kernel = Kernel(kind if threshold is None else f"{kind} with {threshold.name}", run)
        chain = [layer] if threshold is None else [layer, threshold]
        right = agrees(kernel, chain, source, code_dtype(source), batch)
    except (AttributeError, RuntimeError):  # PyTorch without these operators, or without oneDNN
        return None
    return kernel if right else None


def unrolls(layer: Conv, source: Layer) -> bool:
    """Whether a convolution is computed as one product of its whole input.

    So are small ones whose kernel covers the input, and those of few channels, for which the
    library's convolution is slow: it would multiply zeros, too.
    """
    covers = layer.weight.shape[1:] == source.shape
    few = layer.groups == 1 and source.shape[0] < _PIXEL
    weights = int(np.prod(source.shape)) * int(np.prod(layer.shape))
    return (covers or few) and weights <= UNROLLED and code_dtype(source) == torch.uint8


def _fits(layer: Conv | MatMul, source: Layer) -> bool:
    """Whether operands are bytes, and sums exact."""
    carrier = code_dtype(source)
    # Fast products take no zero-point; convolutions do, at little cost.
    if carrier.is_floating_point or (carrier == torch.int8 and isinstance(layer, MatMul)):
        return False
    low, high = int(layer.weight.min()), int(layer.weight.max())
    largest, sums = int(source.high.max()), bound(layer, source)
    if carrier == torch.int8:
        # As they enter; sums are exact before the zero-point is taken off, too.
        largest = 255
        sums = largest * int(np.abs(layer.weight).sum(axis=(1, 2, 3)).max())
    if low < -128 or high > 127 or sums >= EXACT:
        return False
    return 2 * largest * max(-low, high) < _PAIR_LIMIT or not saturates()


@dataclass(frozen=True)
class _Finish:
    """What oneDNN makes of a sum: ``clip(rint(sum * slope + offset))``, or nothing."""

    slope: Tensor
    offset: Tensor | None
    dtype: torch.dtype
    clip: tuple[float, float] | None = None

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The operators' arguments: scales and zero-points of the weights, bias."""
        return self.slope, torch.zeros(len(self.slope), dtype=torch.int32), self.offset

    @property
    def output(self) -> tuple[float, int, torch.dtype, str, list[float], str]:
        """The operators' arguments: scale, zero-point and dtype, then the clip."""
        operation, limits = ("none", []) if self.clip is None else ("hardtanh", [*self.clip])
        return 1.0, 0, self.dtype, operation, limits, ""


def _finish(layer: Layer, threshold: Threshold | None) -> _Finish | None:
    if threshold is None:
        return _Finish(torch.ones(len(layer.low)), None, torch.float32)
    dtype, rescale = code_dtype(threshold), fit_rescale(threshold, layer)
    if dtype.is_floating_point or rescale is None:
        return None
    return _Finish(
        torch.from_numpy(rescale.slope),
        torch.from_numpy(rescale.offset),
        dtype,
        (float(rescale.low), float(rescale.high)),
    )


def _conv(
    windows: Windows, finish: _Finish, source: Layer, batch: int
) -> Callable[[Tensor], Tensor]:
    layer = windows.layer
    signed = code_dtype(source) == torch.int8
    zero = _ZERO_POINT if signed else 0
    weight = torch.from_numpy(layer.weight.copy()).to(torch.int8)
    few = source.shape[0] < _PIXEL
    if few:
        weight = F.pad(weight, (0, 0, 0, 0, 0, _PIXEL - source.shape[0]))
    padding = windows.padding
    geometry = (layer.strides, padding or (0, 0), (1, 1), 1)
    packed = torch.ops.onednn.qconv_prepack(
        weight,
        finish.slope,
        1.0,
        zero,
        *geometry,
        [batch, weight.shape[1], *source.shape[1:]],
    )

    weights, output = finish.weights, finish.output
    read = Layout(windows.read(torch.empty(1, *source.shape)).shape[1:])

    def run(x: Tensor) -> Tensor:
        if signed:
            # Two's complement: flipping the highest bit adds 128.
            x = x.to(torch.int8).view(torch.uint8) ^ _ZERO_POINT
        x = windows.read(x.to(torch.uint8))
        x = _pixels(x) if few else read(x)
        if padding is None:
            x = channels_last(pad(x, layer.pads, zero))
        result: Tensor = torch.ops.onednn.qconv_pointwise(
            x, 1.0, zero, packed, *weights, *geometry, *output
        )
        return result

    return run


def _unrolled(
    layer: Conv, finish: _Finish, source: Layer, batch: int
) -> Callable[[Tensor], Tensor]:
    """Each output a row of weights over the input, both with channels last."""
    size, (out, height, width) = int(np.prod(source.shape)), layer.shape
    each = np.eye(size, dtype=np.int64).reshape(size, *source.shape)
    columns = reference.run(layer, [each]).reshape(*source.shape, *layer.shape)
    weight = torch.from_numpy(columns.transpose(4, 5, 3, 1, 2, 0).reshape(-1, size).copy())
    places = height * width
    offset = None if finish.offset is None else finish.offset.repeat(places)
    product = _multiplied(
        weight, replace(finish, slope=finish.slope.repeat(places), offset=offset), batch
    )

    def run(x: Tensor) -> Tensor:
        codes = product(x.permute(0, 2, 3, 1).reshape(x.shape[0], size))
        return codes.view(x.shape[0], height, width, out).permute(0, 3, 1, 2)

    return run


def _pixels(x: Tensor) -> Tensor:
    """Fewer than four channels as the bytes of one word: channels last, zeros behind them."""
    planes = x.to(torch.int32)
    words = planes[:, 0]
    for channel in range(1, x.shape[1]):
        words = words | planes[:, channel] << 8 * channel
    pixels = in_rows(words).view(torch.uint8).view(*words.shape, _PIXEL)
    return pixels.permute(0, 3, 1, 2)


def _product(layer: MatMul, finish: _Finish, batch: int) -> Callable[[Tensor], Tensor]:
    return _multiplied(torch.from_numpy(layer.weight.T.copy()), finish, batch)


def _multiplied(weight: Tensor, finish: _Finish, batch: int) -> Callable[[Tensor], Tensor]:
    """The product with integer weights (out, in)."""
    packed = torch.ops.onednn.qlinear_prepack(weight.to(torch.int8), [batch, weight.shape[1]])
    weights, output = finish.weights, finish.output

    def run(x: Tensor) -> Tensor:
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            x.to(torch.uint8), 1.0, 0, packed, *weights, *output
        )
        return result

    return run


@cache
def saturates() -> bool:
    """Whether sums of large products come out wrong on this processor.

    Raises:
        AttributeError: PyTorch without these operators.
        RuntimeError: PyTorch without oneDNN.
    """
    count, ones = 64, torch.ones(64)
    x = torch.full((count, count), 255, dtype=torch.uint8)
    weight = torch.full((count, count), 127, dtype=torch.int8)
    plain = _Finish(ones, None, torch.float32)
    product = torch.ops.onednn.qlinear_pointwise(
        x,
        1.0,
        0,
        torch.ops.onednn.qlinear_prepack(weight, [count, count]),
        *plain.weights,
        *plain.output,
    )
    geometry = ((1, 1), (0, 0), (1, 1), 1)
    conv = torch.ops.onednn.qconv_pointwise(
        x[:, :, None, None],
        1.0,
        0,
        torch.ops.onednn.qconv_prepack(
            weight[:, :, None, None], ones, 1.0, 0, *geometry, [count, count, 1, 1]
        ),
        *plain.weights,
        *geometry,
        *plain.output,
    )
    return not all(bool((found == 255 * 127 * count).all()) for found in (product, conv))
