"""Conv, MatMul and Gemm: integer weights, exact accumulator ranges."""

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.affine import Affine, Weights
from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.ir import Conv, FloatArray, IntArray, MatMul, bits_for
from fpga_flow.lowering.model import refuse
from fpga_flow.lowering.windows import read_window

MAX_WEIGHT_BITS = 8


def conv(ctx: Context, node: NodeProto) -> None:
    """Lower a Conv of maps, or of signals as maps of height 1; grouped or not."""
    x, weights = ctx.pure(node), _weights(ctx, node)
    if weights.codes.ndim not in (3, 4):
        raise refuse(node, "only 1-D and 2-D convolutions are supported", "Use Conv1d or Conv2d")
    groups = int(attribute(node, "group", 1))
    window = read_window(ctx, node, weights.codes.shape[2:])
    if weights.codes.ndim == 3:
        codes, scale = weights.codes[:, :, None], weights.scale[:, :, None]
        weights = Weights(codes, scale, weights.bits)
    out, per_group = weights.codes.shape[:2]
    group = np.arange(out) // (out // groups)
    low, high = x.low.reshape(groups, per_group)[group], x.high.reshape(groups, per_group)[group]
    if any(window.pads):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    low, high = _reach(weights.codes, low[:, :, None, None], high[:, :, None, None])
    value = _accumulator(
        node,
        shape=ctx.shape(node.output[0]),
        scale=_input_scale(node, x, groups)[group] * _output_scale(node, weights, axis=0),
        low=low,
        high=high,
        roundings=x.roundings + _product_roundings(weights.codes[0].size),
    )
    if len(node.input) > 2:
        knob = ctx.knob(node, 2, out, 1.0)
        value = value.plus(ctx.parameter(node, 2, (out,)), knob)
    layer = Conv(
        **ctx.common(node, value),
        inputs=(x.ref,),
        weight=weights.codes,
        weight_bits=weights.bits,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        groups=groups,
    )
    ctx.emit(node, layer, value)


def matmul(ctx: Context, node: NodeProto) -> None:
    """Lower a MatMul of activations (N, in) by weights (in, out)."""
    _dense(ctx, node, _weights(ctx, node), factor=1.0)


def gemm(ctx: Context, node: NodeProto) -> None:
    """Lower a Gemm: MatMul with transposed weights, factors and bias."""
    weights = _weights(ctx, node)
    if attribute(node, "transA", 0):
        raise refuse(node, "its activations are transposed (transA)", "Use nn.Linear")
    if attribute(node, "transB", 0):
        weights = weights.transposed((1, 0))
    _dense(ctx, node, weights, factor=float(attribute(node, "alpha", 1.0)))


def _dense(ctx: Context, node: NodeProto, weights: Weights, factor: float) -> None:
    x = ctx.pure(node)
    if len(x.shape) != 1 or weights.codes.ndim != 2:
        raise refuse(
            node,
            f"it multiplies activations {x.shape} by weights {weights.codes.shape}, "
            "but (features,) by (in, out) is expected",
            "Flatten activations to (N, features) before a linear layer",
        )
    codes = weights.codes
    low, high = _reach(codes.T, x.low, x.high)
    value = _accumulator(
        node,
        shape=(codes.shape[1],),
        scale=factor * _input_scale(node, x, 1) * _output_scale(node, weights, axis=1),
        low=low,
        high=high,
        roundings=x.roundings + _product_roundings(len(codes)) + 1,  # alpha
    )
    if len(node.input) > 2:
        beta = float(attribute(node, "beta", 1.0))
        knob = ctx.knob(node, 2, codes.shape[1], beta)
        value = value.plus(beta * ctx.parameter(node, 2, value.shape), knob)
    layer = MatMul(
        **ctx.common(node, value), inputs=(x.ref,), weight=codes, weight_bits=weights.bits
    )
    ctx.emit(node, layer, value)


def _weights(ctx: Context, node: NodeProto) -> Weights:
    weights = ctx.values.get(node.input[1])
    if not isinstance(weights, Weights):
        raise refuse(
            node,
            "its second input is no quantized weight",
            "Use a quantized layer (Brevitas: QuantConv2d, QuantLinear; "
            "divqat_brevitas.swap_quantizers does it for a whole model)",
        )
    if weights.bits > MAX_WEIGHT_BITS:
        raise refuse(node, f"its weights have {weights.bits} bits", "Use 1 to 8 bits")
    return weights


def _reach(weight: IntArray, low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
    """Least and greatest sum a row of ``weight`` (out, ...) makes of inputs in [low, high]."""
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    axes = tuple(range(1, weight.ndim))
    return (
        (positive * low + negative * high).sum(axis=axes),
        (positive * high + negative * low).sum(axis=axes),
    )


def _input_scale(node: NodeProto, x: Affine, groups: int) -> FloatArray:
    """The one scale each group's channels share: (groups,)."""
    scale = x.scale.reshape(groups, -1)
    if (scale != scale[:, :1]).any():
        raise refuse(
            node,
            "it sums channels of different scale",
            "Quantize its input per tensor (Brevitas: an act_quant without per-channel scaling; "
            "the same QuantIdentity or QuantReLU instance on all branches of a concatenation)",
        )
    return scale[:, 0]


def _output_scale(node: NodeProto, weights: Weights, axis: int) -> FloatArray:
    """The one scale of each output channel: (out,)."""
    scale = np.moveaxis(weights.scale, axis, 0).reshape(weights.scale.shape[axis], -1)
    if (scale != scale[:, :1]).any():
        raise refuse(
            node,
            "its weights have several scales inside one output channel",
            "Quantize weights per tensor or per output channel",
        )
    return scale[:, 0]


def _product_roundings(terms: int) -> int:
    """Roundings of each term of a sum: weight * scale, product, additions in any order."""
    return 2 + terms


def _accumulator(
    node: NodeProto,
    shape: tuple[int, ...],
    scale: FloatArray,
    low: IntArray,
    high: IntArray,
    roundings: int,
) -> Affine:
    return Affine(
        ref=str(node.output[0]),
        shape=shape,
        bits=bits_for(int(low.min()), int(high.max())),
        low=low,
        high=high,
        scale=scale,
        bias=np.zeros(1),
        roundings=roundings,
    )
