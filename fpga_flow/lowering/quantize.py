"""Quant and BipolarQuant: weights to codes, activations to thresholds, the image to codes."""

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.affine import Affine, Float, Weights
from fpga_flow.lowering.context import Context, Site, per_channel
from fpga_flow.lowering.inputs import InputQuant
from fpga_flow.lowering.ir import FloatArray, Threshold
from fpga_flow.lowering.model import refuse
from fpga_flow.lowering.quantizers import ACTIVATION_ROUNDINGS, Quantizer, read_quantizer
from fpga_flow.lowering.thresholds import Folded, fold

MAX_ACTIVATION_BITS = 8
MAX_THRESHOLDS = 2**25  # of one layer; 256 MiB each of several arrays
MAX_CONSTANT_BITS = 32  # biases; weights are limited where they are used


def quantize(ctx: Context, node: NodeProto) -> None:
    """Lower a Quant or BipolarQuant node."""
    constant = ctx.model.get_initializer(node.input[0])
    if constant is not None:
        _constant(ctx, node, np.asarray(constant, dtype=np.float32))
        return
    quantizer = read_quantizer(ctx.model, node, MAX_ACTIVATION_BITS)
    if quantizer.rounding not in ACTIVATION_ROUNDINGS:
        raise refuse(
            node,
            f"rounding mode {quantizer.rounding} of activations is not supported",
            f"Use {', '.join(ACTIVATION_ROUNDINGS)}",
        )
    value = ctx.values.get(node.input[0])
    if isinstance(value, Float):
        _image(ctx, node, value, quantizer)
    else:
        _activation(ctx, node, ctx.affine(node), quantizer)


def _constant(ctx: Context, node: NodeProto, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        raise refuse(node, "its weights hold NaN or infinity", "Train the model again")
    quantizer = read_quantizer(ctx.model, node, MAX_CONSTANT_BITS)
    try:
        scale = np.broadcast_to(quantizer.scale.astype(np.float64), array.shape)
    except ValueError as e:
        raise refuse(
            node,
            f"its scale of shape {quantizer.scale.shape} does not fit weights {array.shape}",
            "Quantize per tensor or per output channel",
        ) from e
    ctx.set(node, Weights(quantizer.codes(array), scale, quantizer.bits))


def _image(ctx: Context, node: NodeProto, value: Float, quantizer: Quantizer) -> None:
    if ctx.input is not None:
        raise refuse(
            node,
            f"the image is quantized a second time (first by {ctx.input.name!r})",
            "Quantize the input once and use the result everywhere",
        )
    codes = Affine(
        ref=str(node.output[0]),
        shape=ctx.shape(node.output[0]),
        bits=quantizer.bits,
        low=np.array(quantizer.low),
        high=np.array(quantizer.high),
        scale=per_channel(node, quantizer.scale.astype(np.float64), value.shape),
        bias=np.zeros(1),
    )
    ctx.input = InputQuant(
        **ctx.common(node, codes),
        inputs=(ctx.model.graph.input[0].name,),
        quantizer=quantizer,
        preamble=value.steps,
    )
    ctx.set(node, codes)


def _activation(ctx: Context, node: NodeProto, value: Affine, quantizer: Quantizer) -> None:
    scale = ctx.per_channel(node, quantizer.scale.astype(np.float64), value.shape)
    check_count(node, value.shape, quantizer.bits)
    folded = fold(
        quantizer,
        gain=value.scale / scale,
        offset=value.bias / scale,
        low=value.low,
        high=value.high,
        floor=value.floor / scale,
        ceiling=value.ceiling / scale,
    )
    layer = emit_codes(ctx, node, value, quantizer, folded, scale)
    size = np.abs(value.scale)
    ctx.sites.append(
        Site(
            layer=layer.name,
            ref=value.ref,
            folded=folded,
            scale=size,
            knobs=value.knobs,
            constants=value.constants / np.where(size == 0, 1.0, size),
            roundings=value.roundings + 1,  # the division by the quantizer's scale
        )
    )


def check_count(node: NodeProto, shape: tuple[int, ...], bits: int) -> None:
    """Refuse a quantizer that needs more memory than a classifier's."""
    if shape[0] << bits > MAX_THRESHOLDS:
        raise refuse(
            node,
            f"{shape[0]} channels of {bits} bits need over {MAX_THRESHOLDS} thresholds",
            "Quantize before flattening, or pool first",
        )


def emit_codes(
    ctx: Context,
    node: NodeProto,
    x: Affine,
    quantizer: Quantizer,
    folded: Folded,
    scale: FloatArray,
) -> Threshold:
    """Emit the thresholds that make codes of ``x``; ``scale`` float64 (C,) is a code's step."""
    ends = np.sort(np.stack([folded.signs * x.low, folded.signs * x.high]), axis=0)
    counts = (ends[:, :, None] >= folded.integers).sum(axis=2)
    codes = Affine(
        ref=str(node.output[0]),
        shape=x.shape,
        bits=quantizer.bits,
        low=quantizer.low + quantizer.step * counts[0],
        high=quantizer.low + quantizer.step * counts[1],
        scale=scale,
        bias=np.zeros(1),
    )
    layer = Threshold(
        **ctx.common(node, codes),
        inputs=(x.ref,),
        thresholds=folded.integers,
        signs=folded.signs,
        base=quantizer.low,
        step=quantizer.step,
    )
    ctx.emit(node, layer, codes)
    return layer
