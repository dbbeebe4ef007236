"""A kernel of a library on trial: against int64 arithmetic, in every layout and size it will see.

A trial shows faults that are there on each call. Faults that come and go are excluded by rule
(``convolution.is_plain``); the trial makes them likelier to show: memory that a kernel could take
for its result is spoiled before each call, and each call is made twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

import numpy as np
import torch

from fpga_flow.integer.kernel import Kernel
from fpga_flow.integer.layout import Layout, batch_sizes
from fpga_flow.lowering import Layer, reference
from fpga_flow.lowering.ir import Conv, IntArray, MatMul, Threshold

_CHANNELS = 16
_CALLS = 2
_verdicts: ContextVar[dict[str, bool] | None] = ContextVar("verdicts", default=None)


@contextmanager
def remembered(verdicts: dict[str, bool]) -> Iterator[None]:
    """Trials with a verdict are not held again inside; the verdicts of others are added.

    Args:
        verdicts: whether a kernel agrees, by its kind and layers; of one network, batch size,
            number of threads and machine.
    """
    token = _verdicts.set(verdicts)
    try:
        yield
    finally:
        _verdicts.reset(token)


def agrees(
    kernel: Kernel,
    chain: Sequence[Conv | MatMul | Threshold],
    source: Layer,
    dtype: torch.dtype,
    batch: int,
) -> bool:
    """Whether a kernel equals a chain of layers on extreme inputs, at all sizes up to ``batch``.

    Args:
        kernel: computes the whole chain.
        chain: a Conv or MatMul, then perhaps its Threshold.
        source: writes the chain's input.
        dtype: of the tensor that carries it.
        batch: the largest number of images in a call.
    """
    known = _verdicts.get()
    if known is None:
        return _agrees(kernel, chain, source, dtype, batch)
    key = f"{kernel.kind}: {', '.join(layer.name for layer in chain)}"
    if key not in known:
        known[key] = _agrees(kernel, chain, source, dtype, batch)
    return known[key]


def _agrees(
    kernel: Kernel,
    chain: Sequence[Conv | MatMul | Threshold],
    source: Layer,
    dtype: torch.dtype,
    batch: int,
) -> bool:
    images = extremes(source)
    # Whole groups are cheap; of an ungrouped convolution some channels tell.
    some = np.arange(chain[0].shape[0])
    if not (isinstance(chain[0], Conv) and chain[0].groups > 1):
        some = np.random.default_rng(1).permutation(some)[:_CHANNELS]
    expected = images
    for layer in chain:
        expected = reference.run(_narrowed(layer, some), [expected])
    carried, right = torch.from_numpy(images).to(dtype), torch.from_numpy(expected)
    channels, layout = torch.from_numpy(some), Layout.of(source)
    for count in batch_sizes(batch):
        at = torch.arange(count) % len(images)
        x = layout(carried[at])
        for _ in range(_CALLS):
            _spoil(count * int(np.prod(chain[-1].shape)))
            result = kernel(x)
            if result.shape != (count, chain[0].shape[0], *expected.shape[2:]):
                return False
            if not torch.equal(result[:, channels].to(torch.int64), right[at]):
                return False
    return True


def extremes(source: Layer) -> IntArray:
    """Integers (4, *shape): random ends of the channels' ranges twice, all lowest, all highest."""
    rng = np.random.default_rng(0)
    low, high = (
        np.broadcast_to(end.reshape(-1, *[1] * (len(source.shape) - 1)), source.shape)
        for end in (source.low, source.high)
    )
    mixed = [np.where(rng.random(source.shape) < 0.5, low, high) for _ in range(2)]
    return np.stack([*mixed, low, high])


def _spoil(elements: int) -> None:
    """Memory of the result's size, given back full of what no result is."""
    for dtype in (torch.uint8, torch.float32):
        torch.full((elements,), 173, dtype=dtype)


def _narrowed(layer: Conv | MatMul | Threshold, some: IntArray) -> Layer:
    """The layer with only ``some`` of its output channels."""
    match layer:
        case Conv():
            return replace(layer, weight=layer.weight[some])
        case MatMul():
            return replace(layer, weight=layer.weight[:, some])
        case Threshold():
            return replace(layer, thresholds=layer.thresholds[some], signs=layer.signs[some])
