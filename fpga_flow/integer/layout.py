"""The memory layouts and batch sizes that kernels are called with: these and no others.

A kernel of a library may be right in one layout and wrong in another, and an axis of length 1 may
have any stride: PyTorch calls such a tensor contiguous, and libraries have read that stride. So
every tensor between kernels has one stated layout, to the last stride, and every call has one of a
few batch sizes. `trial` compares kernels with int64 arithmetic in exactly these.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from fpga_flow.lowering import Layer
from fpga_flow.lowering.inputs import InputQuant


def batch_sizes(batch: int) -> tuple[int, ...]:
    """The powers of two up to ``batch``, ascending: any number of images is a sum of them.

    Example:
        >>> batch_sizes(5)
        (1, 2, 4)
    """
    return tuple(2**power for power in range(batch.bit_length()))


def parts(count: int, batch: int) -> Iterator[slice]:
    """``count`` images in slices of those sizes, the largest first.

    Args:
        count: of images.
        batch: the largest size, a power of two.

    Example:
        >>> [part.stop - part.start for part in parts(11, 4)]
        [4, 4, 2, 1]
    """
    start = 0
    while start < count:
        size = min(batch, 1 << (count - start).bit_length() - 1)
        yield slice(start, start + size)
        start += size


class Layout:
    """Brings batches (N, *shape) into one stated layout.

    Args:
        shape: of the tensors, without batch.
        arrange: `channels_last` or `in_rows`.
    """

    def __init__(
        self, shape: Sequence[int], arrange: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self._arrange = arrange or channels_last
        # The same for every batch, so they are not computed at each call.
        self._strides = self._arrange(torch.empty(1, *shape)).stride()

    @classmethod
    def of(cls, layer: Layer) -> "Layout":
        """How the integers that ``layer`` writes lie in memory.

        Codes of the input are in the order of its axes; other maps have channels last.
        """
        return cls(layer.shape, in_rows if isinstance(layer, InputQuant) else channels_last)

    def __call__(self, x: Tensor) -> Tensor:
        """The same integers in that layout; ``x`` itself where it has it."""
        return x if x.stride() == self._strides else self._arrange(x)


def channels_last(x: Tensor) -> Tensor:
    """Maps (N, C, H, W) with channels last in memory, other tensors in the order of their axes."""
    if x.ndim != 4:
        return in_rows(x)
    _, c, h, w = x.shape
    return _with_strides(x, (c * h * w, 1, c * w, c), torch.channels_last)


def in_rows(x: Tensor) -> Tensor:
    """In the order of its axes, the last one dense."""
    strides: tuple[int, ...] = (1,)
    for length in x.shape[:0:-1]:
        strides = (strides[0] * length, *strides)
    return _with_strides(x, strides, torch.contiguous_format)


def _with_strides(x: Tensor, strides: tuple[int, ...], order: torch.memory_format) -> Tensor:
    if x.stride() == strides:
        return x
    if x.is_contiguous(memory_format=order):  # but for the strides of axes of length 1
        return x.as_strided(x.shape, strides)
    return torch.empty_strided(x.shape, strides, dtype=x.dtype).copy_(x)
