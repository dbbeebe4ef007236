"""Sliding windows of Conv and pooling nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.ir import IntArray, Pads, Pair
from fpga_flow.lowering.model import refuse


@dataclass(frozen=True)
class Window(ShortRepr):
    """Kernel (h, w), strides, pads (top left bottom right), dilations.

    Attributes:
        counted: int64 (H', W'), the pixels of each window, zeros of the file's padding included.
        inside: int64 (H', W'), the pixels of each window that are no padding.
    """

    kernel: Pair
    strides: Pair
    pads: Pads
    dilations: Pair
    counted: IntArray
    inside: IntArray


def read_window(ctx: Context, node: NodeProto, kernel: Sequence[int]) -> Window:
    """The window of ``node``, checked against the output shape in the file.

    Windows along one axis become windows of height 1. Where the last windows reach over the
    padding (``ceil_mode``), ``pads`` is as large as they need it.
    """
    shape, out = ctx.shape(node.input[0]), ctx.shape(node.output[0])
    if len(shape) != 3 or len(kernel) not in (1, 2):
        raise refuse(
            node,
            f"it reads activations of shape {shape}",
            "Use 2-D layers on (C, H, W), or 1-D layers on (C, L)",
        )
    flat = len(kernel) == 1  # signals (C, L) are maps (C, 1, L)

    def pair(values: Sequence[int], fill: int) -> Pair:
        height, width = (fill, *values) if flat else values
        return int(height), int(width)

    ends = attribute(node, "pads", (0, 0) if flat else (0, 0, 0, 0))
    before, after = pair(ends[: len(kernel)], 0), pair(ends[len(kernel) :], 0)
    kernels = pair(kernel, 1)
    strides = pair(attribute(node, "strides", (1,) * len(kernel)), 1)
    dilations = pair(attribute(node, "dilations", (1,) * len(kernel)), 1)
    ceil = bool(attribute(node, "ceil_mode", 0))
    counted, inside, reached = [], [], []
    for axis in (0, 1):
        size, count = shape[1 + axis], out[1 + axis]
        span = dilations[axis] * (kernels[axis] - 1) + 1
        last = (count - 1) * strides[axis] + span  # where the last window ends
        end = max(before[axis] + size + after[axis], last) if ceil else before[axis] + size
        end = end if ceil else end + after[axis]
        if (end - span) // strides[axis] + 1 != count:
            raise refuse(
                node,
                f"the file gives it {count} windows along an axis of {size} pixels, where its "
                f"kernel, stride and padding make {(end - span) // strides[axis] + 1}",
                "Export the model again",
            )
        # (windows, taps): places counted from the first pixel.
        starts = np.arange(count)[:, None] * strides[axis] - before[axis]
        places = starts + np.arange(kernels[axis]) * dilations[axis]
        counted.append(((places >= -before[axis]) & (places < size + after[axis])).sum(axis=1))
        inside.append(((places >= 0) & (places < size)).sum(axis=1))
        reached.append(end - before[axis] - size)
    return Window(
        kernels,
        strides,
        (before[0], before[1], reached[0], reached[1]),
        dilations,
        np.outer(*counted),
        np.outer(*inside),
    )
