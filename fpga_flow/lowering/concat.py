"""Concatenation of branches along the channels."""

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.affine import Affine, binary_exponents
from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.ir import Concat, FloatArray, IntArray, bits_for
from fpga_flow.lowering.model import refuse

_MOST_SHIFT = 16


def concat(ctx: Context, node: NodeProto) -> None:
    """Lower a Concat along the channels.

    Each channel keeps its scale and bias. Where all scales are powers of two of the finest one,
    integers are shifted to that, so that a convolution behind can sum over all channels.
    """
    rank = len(ctx.file_shape(node.output[0])) + 1
    if int(attribute(node, "axis", 1)) % rank != 1:
        raise refuse(
            node,
            "it joins maps along height, width or the batch",
            "Concatenate along the channels (dim=1)",
        )
    branches = [ctx.affine(node, index) for index in range(len(node.input))]

    def joined(name: str) -> FloatArray:
        return np.concatenate([getattr(branch, name) for branch in branches])

    scale, low, high = joined("scale"), joined("low").astype(int), joined("high").astype(int)
    shifts = _alignment(scale)
    if shifts is None:
        shifts = np.zeros(len(scale), dtype=np.int64)
    else:
        scale = np.full_like(scale, scale[np.abs(scale).argmin()])
    low, high = low << shifts, high << shifts
    starts = np.cumsum([0, *(branch.shape[0] for branch in branches)])
    value = Affine(
        ref=str(node.output[0]),
        shape=ctx.shape(node.output[0]),
        bits=max(*(b.bits for b in branches), bits_for(int(low.min()), int(high.max()))),
        low=low,
        high=high,
        scale=scale,
        bias=joined("bias"),
        floor=joined("floor"),
        ceiling=joined("ceiling"),
        constants=joined("constants"),
        roundings=max(branch.roundings for branch in branches),
        knobs=tuple(
            replace(knob, first=knob.first + int(start))
            for branch, start in zip(branches, starts, strict=False)
            for knob in branch.knobs
        ),
    )
    refs = tuple(branch.ref for branch in branches)
    ctx.emit(node, Concat(**ctx.common(node, value), inputs=refs, shifts=shifts), value)


def _alignment(scale: FloatArray) -> IntArray | None:
    """By how many bits each channel's integers grow at the finest scale; None where not all can."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shifts = binary_exponents(scale / scale[np.abs(scale).argmin()])
    return None if shifts is None or shifts.max() > _MOST_SHIFT else shifts
