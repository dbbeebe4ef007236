"""Sliding windows of Conv and pooling nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.errors import refuse
from fpga_flow.lowering.ir import Pads, Pair


@dataclass(frozen=True)
class Window:
    """Kernel (h, w), strides, pads (top left bottom right), dilations."""

    kernel: Pair
    strides: Pair
    pads: Pads
    dilations: Pair


def read_window(ctx: Context, node: NodeProto, kernel: Sequence[int]) -> Window:
    """The window of ``node``, checked against the output shape in the file."""
    shape = ctx.shape(node.input[0])
    if len(shape) != 3 or len(kernel) != 2:
        raise refuse(node, f"it reads activations of shape {shape}", "Use 2-D layers on (C, H, W)")
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID"):
        raise refuse(node, f"auto_pad is {mode}", "Give the padding in numbers")
    kh, kw = map(int, kernel)
    sh, sw = map(int, attribute(node, "strides", (1, 1)))
    dh, dw = map(int, attribute(node, "dilations", (1, 1)))
    top, left, bottom, right = map(int, attribute(node, "pads", (0, 0, 0, 0)))
    out = (
        (shape[1] + top + bottom - dh * (kh - 1) - 1) // sh + 1,
        (shape[2] + left + right - dw * (kw - 1) - 1) // sw + 1,
    )
    if out != ctx.shape(node.output[0])[1:]:
        raise refuse(node, "its last window reaches over the edge (ceil_mode)", "Set it False")
    return Window((kh, kw), (sh, sw), (top, left, bottom, right), (dh, dw))
