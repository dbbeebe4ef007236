"""Integer quantization for training, in one pass over memory each way.

Brevitas composes a quantizer of small differentiable steps; on a CPU each is a pass over the
activations, and together they cost as much as the convolutions, in time and in what they keep for
the backward pass. Here forward and backward are written out for zero-point 0 and keep only the
input. ``fused.cpp`` takes about as long as a ReLU; without a C++ compiler PyTorch's operators take
all steps on one block after the other in the cache. The values and the gradient of ``x`` are
Brevitas' own, bit for bit; the gradient of the scale sums in another order. They are those of
straight-through rounding and a clamp, Esser et al., "Learned Step Size Quantization", ICLR 2020,
eq. 3 and 5::

    dL/dx = g             where round(x/s) is within the bounds, else 0
    dL/ds = Σ g · (round(x/s) - x/s   within the bounds, else the bound)
"""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from divqat_brevitas.native import cache_folder, compiled

# Beyond it a bound ± 0.5 is no float32; such bit widths take Brevitas' own path.
LARGEST_BOUND = 2**22
# Values a thread has in hand at a time: four blocks of float32 fit in a level-2 cache of 1 MiB or
# little more, and a call of an operator is short beside the work on one.
BLOCK = 2**16


def edges(low: int, high: int) -> tuple[float, float]:
    """The open interval of float32 values that round (half to even) to low..high.

    Example:
        >>> edges(-7, 15)
        (-7.5, 15.5)
        >>> below, above = edges(-8, 14)  # both ties round to the even bound: they belong to it
        >>> below < -8.5, 14.5 < above
        (True, True)
    """
    below, above = low - 0.5, high + 0.5
    if low % 2 == 0:
        below = float(np.nextafter(np.float32(below), np.float32(-math.inf)))
    if high % 2 == 0:
        above = float(np.nextafter(np.float32(above), np.float32(math.inf)))
    return below, above


@cache
def library() -> ctypes.CDLL | None:
    """fused.cpp for this processor; None without a C++ compiler."""
    found = compiled(Path(__file__).with_suffix(".cpp"), cache_folder("training"))
    if found is not None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        sizes, modes = [number, number], [number, number, number]
        found.divqat_quantize.argtypes = [pointer, pointer, *sizes, pointer, pointer, *modes]
        found.divqat_gradients.argtypes = [*[pointer] * 3, *sizes, *[pointer] * 3, *modes[1:]]
        found.divqat_quantize.restype = found.divqat_gradients.restype = None
    return found


@dataclass(frozen=True)
class Grid:
    """Where values are quantized to: multiples of a scale between two bounds.

    With ``rectify`` (and ``low`` 0) what a ReLU would have cut off before counts as 0.
    """

    low: int
    high: int
    rectify: bool = False

    @cached_property
    def edges(self) -> tuple[float, float]:
        """Between them the gradient passes."""
        below, above = edges(self.low, self.high)
        return 0.0 if self.rectify else below, above

    @cached_property
    def _bounds(self) -> Any:
        return (ctypes.c_float * 4)(self.low, self.high, *self.edges)

    def quantize(self, x: Tensor, scale: Tensor) -> Tensor:
        """A new tensor, laid out in memory as ``x``."""
        result = torch.empty_like(x)
        rows = _rows(x, scale)
        if rows is not None:
            assert rows.library is not None
            rows.library.divqat_quantize(
                x.data_ptr(), result.data_ptr(), rows.count, rows.size, scale.data_ptr(),
                self._bounds, self.rectify, x.dtype == torch.bfloat16, rows.threads,
            )  # fmt: skip
            return result
        for (values, out), one in _blocks((x, result), scale):
            torch.div(values, one, out=out).add_(0.0)  # the zero-point: it turns -0 into 0
            if self.rectify:  # bounds are integers: the order decides over the sign of zeros alone
                out.clamp_(self.low, self.high).round_()
            else:
                out.round_().clamp_(self.low, self.high)
            out.mul_(one)
        return result

    def gradients(
        self, x: Tensor, scale: Tensor, gradient: Tensor, of_scale: bool
    ) -> tuple[Tensor, Tensor]:
        """Those of ``x`` and of the scale; the latter may be empty if not asked for."""
        if gradient.stride() != x.stride():  # one order in memory
            gradient = torch.empty_like(x).copy_(gradient)
        inside = torch.empty_like(x)
        rows = _rows(x, scale)
        if rows is not None and gradient.dtype == x.dtype:
            sums = torch.empty_like(scale)
            assert rows.library is not None
            rows.library.divqat_gradients(
                x.data_ptr(), gradient.data_ptr(), inside.data_ptr(), rows.count, rows.size,
                scale.data_ptr(), sums.data_ptr(), self._bounds, x.dtype == torch.bfloat16,
                rows.threads,
            )  # fmt: skip
            return inside, sums
        below, above = self.edges
        terms = torch.empty_like(x) if of_scale else x.new_empty(0)
        parts = (x, gradient, inside, terms) if of_scale else (x, gradient, inside)
        # One block's are the next one's, so that they stay in the cache.
        ratio = room = x.new_empty(0)
        for (values, g, into, *into_terms), one in _blocks(parts, scale):
            if ratio.shape != values.shape:
                ratio, room = torch.empty_like(values), torch.empty_like(values)
            torch.div(values, one, out=ratio)
            # One vectorised pass: the gradient strictly between the edges, 0 elsewhere. Times scale
            # and divided by it again is what the chain rule does in Brevitas, last bit included.
            torch.mul(g, one, out=room)
            torch.ops.aten.hardtanh_backward.grad_input(room, ratio, below, above, grad_input=into)
            into.div_(one)
            for out in into_terms:
                codes = torch.round(ratio, out=room).clamp_(self.low, self.high)
                torch.addcmul(codes.mul_(g), into, ratio, value=-1, out=out)
        return inside, terms.sum_to_size(scale.shape) if of_scale else terms


@dataclass(frozen=True)
class _Rows:
    """A tensor in memory as ``count`` rows of ``size`` values, a scale each, for fused.cpp."""

    library: ctypes.CDLL
    count: int
    size: int
    threads: int


def takes(x: Tensor, scale: Tensor) -> bool:
    """Whether ``x`` can be quantized here with such a scale."""
    if x.dtype == torch.float32 or scale.dtype != torch.float32:
        return x.dtype == scale.dtype == torch.float32
    # Other scales than numbers would make Brevitas' values float32.
    known = x.dtype == torch.bfloat16 and scale.dim() == 0 and x.device.type == "cpu"
    return known and library() is not None


def _rows(x: Tensor, scale: Tensor) -> _Rows | None:
    """None where PyTorch's operators are to do it."""
    count, values = scale.numel(), x.numel()
    if x.device.type != "cpu" or values == 0 or not scale.is_contiguous():
        return None
    if count > 1 and (
        scale.shape[:1] != x.shape[:1]
        or count != len(scale)
        or scale.dim() != x.dim()
        or x.stride(0) != values // count
    ):
        return None
    found = library()
    return None if found is None else _Rows(found, count, values // count, torch.get_num_threads())


def _blocks(
    tensors: tuple[Tensor, ...], scale: Tensor
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Blocks of tensors in the order of their memory, with their scale.

    One block of everything where there are several scales or layouts, little, or no such cache.
    """
    first = tensors[0]
    size = BLOCK * torch.get_num_threads()
    alike = all(t.stride() == first.stride() for t in tensors)
    if not alike or scale.numel() > 1 or first.device.type != "cpu" or first.numel() <= size:
        yield tensors, scale
        return
    flat = [t.as_strided((t.numel(),), (1,)) for t in tensors]
    for parts in zip(*(torch.split(t, size) for t in flat), strict=True):
        yield parts, scale.reshape(())


class _FusedIntQuant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, grid: Grid) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.grid = grid
        return grid.quantize(x, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        of_scale = ctx.needs_input_grad[1]
        inside, total = ctx.grid.gradients(x, scale, gradients[0], of_scale)
        return inside, total if of_scale else None, None


def gapless(x: Tensor) -> Tensor:
    """``x``, or a copy that fills its memory."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    result = torch.empty_like(x)
    return x if result.stride() == x.stride() else result.copy_(x)


def fused_int_quant(x: Tensor, scale: Tensor, low: int, high: int, rectify: bool = False) -> Tensor:
    """``clamp(round(x / scale), low, high) * scale`` with the gradients above.

    Differentiable once, in float32 (with one scale and a C++ compiler also in bfloat16), for codes
    within ±2**22 and a scale that broadcasts to ``x``. ``x`` and the result may be in any memory
    format. ``x`` must not be changed in place before the backward pass. With ``rectify``, for
    which ``low`` must be 0, it quantizes ``relu(x)``.

    Example:
        >>> x = torch.tensor([0.04, -0.26, 9.0], requires_grad=True)
        >>> scale = torch.tensor(0.1, requires_grad=True)
        >>> y = fused_int_quant(x, scale, -7, 7)
        >>> y.sum().backward()
        >>> y.detach(), x.grad, round(scale.grad.item(), 4)
        (tensor([ 0.0000, -0.3000,  0.7000]), tensor([1., 1., 0.]), 6.2)
    """
    x, grid = gapless(x), Grid(low, high, rectify)
    result: Tensor = _FusedIntQuant.apply(x, scale, grid)  # type: ignore[no-untyped-call]
    return remember(result, x, scale, grid)


def remember(result: Tensor, x: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """``result``, with what it can be made of again (see ``requantizing``)."""
    if result.requires_grad:
        source = _Source(x.detach(), scale.detach(), grid, result._version)
        result._divqat_source = source  # type: ignore[attr-defined]
    return result


@dataclass(frozen=True)
class _Source:
    """What a quantized tensor can be made of again, as long as it has not been changed."""

    x: Tensor
    scale: Tensor
    grid: Grid
    version: int


@contextmanager
def requantizing() -> Iterator[None]:
    """Let layers keep a quantizer's input instead of its output for the backward pass.

    A convolution keeps its input for the gradient of its weights, and the quantizer before it
    keeps its own. The first is a function of the second, so here it is computed again when it is
    wanted, bit for bit: one tensor less an activation, for one more pass in the cache.

    Example:
        >>> x = (torch.rand(8) / 2).requires_grad_()
        >>> with requantizing():
        ...     y = fused_int_quant(x, torch.tensor(0.25), 0, 3)
        ...     (y * y).sum().backward()  # the product does not keep y
        >>> torch.equal(x.grad, 2 * y)
        True
    """
    with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
        yield


def _pack(tensor: Tensor) -> Tensor | _Source:
    source: _Source | None = getattr(tensor, "_divqat_source", None)
    return tensor if source is None or source.version != tensor._version else source


def _unpack(kept: Tensor | _Source) -> Tensor:
    return kept if isinstance(kept, Tensor) else kept.grid.quantize(kept.x, kept.scale)
