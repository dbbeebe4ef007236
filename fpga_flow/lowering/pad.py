"""Pad nodes that no convolution or pool takes into itself: of the image, or of integers."""

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.affine import Affine, Float
from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.inputs import FloatStep
from fpga_flow.lowering.ir import FloatArray, Pad, Pads, bits_for
from fpga_flow.lowering.model import refuse
from fpga_flow.lowering.padding import pads_of, value_of
from fpga_flow.lowering.thresholds import TIE


def pad(ctx: Context, node: NodeProto) -> None:
    """Lower a Pad node of height and width."""
    pads, constant = pads_of(ctx.model, node), value_of(ctx.model, node)
    shape = ctx.file_shape(node.input[0])
    if attribute(node, "mode", "constant") != "constant":
        raise refuse(
            node,
            f"it pads with the image's own pixels (mode {attribute(node, 'mode', '')!r})",
            "Pad with zeros",
        )
    if pads is None or constant is None:
        raise refuse(node, "its padding is computed at run time", "Pad by constant numbers")
    half = len(pads) // 2
    if pads[:2].any() or pads[half : half + 2].any() or half not in (3, 4) or (pads < 0).any():
        raise refuse(
            node,
            f"it pads activations of shape {shape} by {pads.tolist()} (starts, then ends)",
            "Pad only height and width, by no negative numbers",
        )
    ends = ((0, 0), *zip(pads[1:half].tolist(), pads[half + 1 :].tolist(), strict=True))
    value = ctx.values.get(node.input[0])
    if isinstance(value, Float):
        step = FloatStep(
            "Pad", ctx.file_shape(node.output[0]), np.array(constant, np.float32), pads=ends
        )
        ctx.set(node, Float(step.shape, (*value.steps, step)))
        return
    x = ctx.affine(node)
    (top, bottom), (left, right) = ends[-2:] if half == 4 else ((0, 0), ends[-1])
    _pad(ctx, node, x, (top, left, bottom, right), constant)


def _pad(ctx: Context, node: NodeProto, x: Affine, pads: Pads, constant: float) -> None:
    fill = _integer(node, x, constant)
    low, high = np.minimum(x.low, fill), np.maximum(x.high, fill)
    value = replace(
        x,
        ref=str(node.output[0]),
        shape=ctx.shape(node.output[0]),
        bits=max(x.bits, bits_for(int(low.min()), int(high.max()))),
        low=low,
        high=high,
    )
    layer = Pad(**ctx.common(node, value), inputs=(x.ref,), pads=pads, fill=fill)
    ctx.emit(node, layer, value)


def _integer(node: NodeProto, x: Affine, constant: float) -> int:
    """The integer that stands for ``constant`` in every channel."""
    alive = x.scale != 0
    exact = (constant - x.bias) / np.where(alive, x.scale, 1.0)
    fills = np.rint(exact[alive])
    tolerance = TIE * np.maximum(1.0, np.abs(fills))
    whole = (np.abs(exact[alive] - fills) <= tolerance).all() and not exact[~alive].any()
    fill = fills[0] if len(fills) else 0.0
    if whole and (fills == fill).all() and ((x.floor <= constant) & (constant <= x.ceiling)).all():
        return int(fill)
    raise refuse(
        node,
        f"its value {constant:g} is no integer of its input, whose values are "
        f"integers * {_listed(x.scale)} + {_listed(x.bias)}",
        "Pad with zeros behind an activation quantizer (Brevitas: QuantReLU, QuantIdentity), not "
        "behind a bias or batch norm",
    )


def _listed(values: FloatArray) -> str:
    """One number, or the ends of several."""
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"({low:g} to {high:g})"
