"""What kernels are made of: a function with a name, and the arithmetic in which sums are exact.

Codes of up to 8 bits travel as bytes, sums as floating-point numbers: float32 where every partial
sum stays below 2**24, float64 below 2**53. There each product and each sum is an integer that the
format holds, so results are exact in any order of summation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from divqat_brevitas.errors import InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.integer.rescale import EXACT
from fpga_flow.lowering import Layer
from fpga_flow.lowering.inputs import FloatImages
from fpga_flow.lowering.ir import Conv, IntArray, MatMul, Pads


@dataclass(frozen=True)
class Kernel(ShortRepr):
    """A layer's function.

    Attributes:
        kind: what computes it, such as "float32" or "table": shown to users.
        run: tensors of integers (N, ...), or the network's images, to a tensor of integers.
    """

    kind: str
    run: Callable[..., Tensor]

    def __call__(self, *inputs: Tensor | FloatImages) -> Tensor:
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
    autocast = torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else None
    with (
        torch.inference_mode(),
        autocast or nullcontext(),
        torch.backends.nnpack.flags(enabled=False),
    ):
        try:
            for op in onednn:
                op.fp32_precision = "ieee"
            yield
        finally:
            for op, precision in zip(onednn, precisions, strict=True):
                op.fp32_precision = precision


def pad(x: Tensor, pads: Pads, value: float) -> Tensor:
    """``value`` around the images."""
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value) if any(pads) else x


def magnitude(source: Layer) -> IntArray:
    """The largest absolute value of each input channel."""
    return np.maximum(np.abs(source.low), np.abs(source.high))


def bound(layer: Conv | MatMul, source: Layer) -> int:
    """No partial sum of any output exceeds this."""
    groups = layer.groups if isinstance(layer, Conv) else 1
    weight = layer.weight if isinstance(layer, Conv) else layer.weight.T  # (out, in / groups, ...)
    group = np.arange(len(weight)) // (len(weight) // groups)
    inputs = magnitude(source).reshape(groups, -1)[group]
    sums = np.abs(weight).reshape(*weight.shape[:2], -1).sum(axis=2)
    return int((sums * inputs).sum(axis=1).max())


def named(dtype: torch.dtype) -> str:
    """Its name without "torch."."""
    return str(dtype).removeprefix("torch.")


def sum_dtype(layer: Layer, limit: int) -> torch.dtype:
    """The format that holds every integer up to ``limit``.

    Raises:
        InputError: 2**53 and more.
    """
    if limit < EXACT:
        return torch.float32
    if limit < 2**53:
        return torch.float64
    raise InputError(
        f"{layer.op} {layer.name!r} can sum up to {limit}, more than 2**53. Use fewer bits."
    )


def code_dtype(layer: Layer) -> torch.dtype:
    """What carries a layer's codes: bytes where they fit, else the smallest float that does.

    Raises:
        InputError: 2**53 and more.
    """
    low, high = int(layer.low.min()), int(layer.high.max())
    if low >= 0 and high <= 255:
        return torch.uint8
    if low >= -128 and high <= 127:
        return torch.int8
    return sum_dtype(layer, max(-low, high))
