"""Operators that only change what integers mean, and the residual addition."""

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.affine import Affine, Float, Weights, binary_exponents
from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.inputs import FloatStep
from fpga_flow.lowering.ir import Add, FloatArray, Reshape, bits_for
from fpga_flow.lowering.model import refuse

# var + eps, root, reciprocal, * gamma make the factor; it times the mean, subtracted from beta or
# the mean from x; the factor times x; the sum: whatever order an engine takes.
_BATCH_NORM_ROUNDINGS = 8


def arithmetic(ctx: Context, node: NodeProto) -> None:
    """Lower Mul, Add, Sub or Div by a constant, or the Add of two branches."""
    constants = [ctx.constant(node, index) for index in (0, 1)]
    if constants[0] is None and constants[1] is None:
        _residual(ctx, node)
        return
    at = 1 if constants[0] is None else 0
    constant, value = constants[at], ctx.values.get(node.input[1 - at])
    assert constant is not None
    if isinstance(value, Float):
        factors = constant.astype(np.float32)
        step = FloatStep(node.op_type, value.shape, factors, at == 0)
        if ctx.file_shape(node.output[0]) != value.shape:
            raise refuse(node, "its constant enlarges the image", "Use one value, or one a channel")
        if not np.isfinite(factors).all() or (step.op == "Div" and not factors.all()):
            raise refuse(
                node,
                "it scales the input by a constant that is 0 or infinite",
                "Normalise with a standard deviation above 0",
            )
        ctx.set(node, Float(value.shape, (*value.steps, step)))
        return
    x = ctx.affine(node, 1 - at)
    ctx.set(node, _with_constant(ctx, node, x, ctx.parameter(node, at, x.shape), at))


def _with_constant(
    ctx: Context, node: NodeProto, x: Affine, constant: FloatArray, at: int
) -> Affine:
    channels = x.shape[0]
    match node.op_type, at:
        case "Mul", _:
            return x.times(constant)
        case "Add", _:
            return x.plus(constant, ctx.knob(node, at, channels, 1.0))
        case "Sub", 1:
            return x.plus(-constant, ctx.knob(node, at, channels, -1.0))
        case "Sub", _:
            return x.times(-np.ones(1)).plus(constant, ctx.knob(node, at, channels, 1.0))
        case "Div", 1 if constant.all():
            return x.times(1 / constant)
        case _:
            raise refuse(node, "it divides by activations or by 0", "Divide by a constant")


def _residual(ctx: Context, node: NodeProto) -> None:
    if node.op_type != "Add":
        raise refuse(
            node,
            "both operands are activations, which only Add supports",
            "Rewrite the block, or keep it outside the exported model",
        )
    a, b = ctx.affine(node, 0), ctx.affine(node, 1)
    if a.shape != b.shape:
        raise refuse(node, f"branches have shapes {a.shape} and {b.shape}", "Make them equal")
    if a.clipped or b.clipped:
        raise refuse(
            node, "a branch ends with a ReLU that no quantizer follows", "Quantize both branches"
        )
    if a.ref == b.ref:  # x + x: twice the same integers
        doubled = replace(a, scale=a.scale + b.scale, bias=a.bias + b.bias, knobs=())
        ctx.set(node, replace(doubled, **_sum_of_noise(a, b)))
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = binary_exponents(a.scale / b.scale)
    if exponent is None:
        raise refuse(
            node,
            "its branches have scales whose ratio is no power of two",
            "Give both branches one quantizer (Brevitas: the same QuantIdentity instance on "
            "both), so that integers can be added",
        )
    shifts = np.stack([np.maximum(exponent, 0), np.maximum(-exponent, 0)])
    low = (a.low << shifts[0]) + (b.low << shifts[1])
    high = (a.high << shifts[0]) + (b.high << shifts[1])
    value = Affine(
        ref=str(node.output[0]),
        shape=a.shape,
        bits=bits_for(int(low.min()), int(high.max())),
        low=low,
        high=high,
        scale=np.where(exponent > 0, b.scale, a.scale),
        bias=a.bias + b.bias,
        **_sum_of_noise(a, b),
    )
    ctx.emit(node, Add(**ctx.common(node, value), inputs=(a.ref, b.ref), shifts=shifts), value)


def _sum_of_noise(a: Affine, b: Affine) -> dict[str, Any]:
    return {
        "constants": a.constants + b.constants,
        "roundings": max(a.roundings, b.roundings) + 1,
    }


def batch_norm(ctx: Context, node: NodeProto) -> None:
    """Lower BatchNormalization: gamma / sqrt(var + eps) and its shift, in float64."""
    x = ctx.affine(node)
    if attribute(node, "training_mode", 0):
        raise refuse(node, "it is in training mode", "Call model.eval() before the export")
    column = (x.shape[0],)
    gamma, beta, mean, variance = (ctx.parameter(node, i, column) for i in (1, 2, 3, 4))
    radicand = variance + float(attribute(node, "epsilon", 1e-5))
    if (radicand <= 0).any():
        raise refuse(node, "a running variance is negative", "Train the model again")
    factor = gamma / np.sqrt(radicand)
    knob = ctx.knob(node, 2, x.shape[0], 1.0)
    size = np.abs(beta) + np.abs(mean * factor)
    value = x.times(factor).plus(beta - mean * factor, knob, size)
    ctx.set(node, replace(value, roundings=x.roundings + _BATCH_NORM_ROUNDINGS))


def relu(ctx: Context, node: NodeProto) -> None:
    """Lower Relu: a clip that the next thresholds absorb."""
    ctx.set(node, ctx.affine(node).clip(0.0, np.inf))


def clip(ctx: Context, node: NodeProto) -> None:
    """Lower Clip (HardTanh) by constant bounds."""
    bounds = []
    for index, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        bound = np.asarray(attribute(node, name, default), dtype=np.float64)
        if len(node.input) > index and node.input[index]:
            constant = ctx.constant(node, index)
            if constant is None or constant.size != 1:
                raise refuse(node, "its bounds are not constant", "Clip to fixed bounds")
            bound = constant
        bounds.append(float(bound.reshape(())))
    ctx.set(node, ctx.affine(node).clip(*bounds))


def identity(ctx: Context, node: NodeProto) -> None:
    """Pass Identity and Dropout, which do nothing at inference."""
    if node.op_type == "Dropout" and len(node.input) > 2 and np.any(ctx.constant(node, 2)):
        raise refuse(node, "it is in training mode", "Call model.eval() before the export")
    value = ctx.values.get(node.input[0])
    ctx.set(node, value if value is not None else ctx.affine(node))


def reshape(ctx: Context, node: NodeProto) -> None:
    """Lower Flatten, Reshape, Squeeze, Unsqueeze: order and batch axis stay."""
    value = ctx.values.get(node.input[0])
    batch = ctx.model.get_tensor_shape(node.output[0])[:1]
    shape = ctx.shape(node.output[0])
    if list(batch) != [1] or not shape:
        raise refuse(node, "it changes the batch axis", "Flatten from axis 1 on")
    if isinstance(value, Float):
        step = FloatStep("Reshape", ctx.file_shape(node.output[0]))
        ctx.set(node, Float(step.shape, (*value.steps, step)))
        return
    x = ctx.affine(node)
    if shape == x.shape:
        ctx.set(node, x)
        return
    reshaped = ctx.emit_reshaped(node, x, shape)
    ctx.emit(node, Reshape(**ctx.common(node, reshaped), inputs=(x.ref,)), reshaped)


def transpose(ctx: Context, node: NodeProto) -> None:
    """Lower Transpose of weights, or one that only moves axes of length 1."""
    value = ctx.values.get(node.input[0])
    rank = len(ctx.model.get_tensor_shape(node.input[0]))
    axes = tuple(int(a) for a in attribute(node, "perm", tuple(reversed(range(rank)))))
    if isinstance(value, Weights):
        ctx.set(node, value.transposed(axes))
        return
    shape = (1, *ctx.file_shape(node.input[0]))
    long_axes = [a for a in axes if shape[a] > 1]
    if axes[0] != 0 or long_axes != sorted(long_axes):
        raise refuse(node, f"it reorders activations (axes {axes})", "Keep NCHW order")
    reshape(ctx, node)
