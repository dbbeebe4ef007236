"""Quant and BipolarQuant: weights to codes, activations to thresholds, the image to codes."""

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.affine import Affine, Float, Weights
from fpga_flow.lowering.context import Context, Site, per_channel
from fpga_flow.lowering.errors import refuse
from fpga_flow.lowering.inputs import InputQuant
from fpga_flow.lowering.ir import Threshold
from fpga_flow.lowering.quantizers import Quantizer, read_quantizer
from fpga_flow.lowering.thresholds import fold

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
    if quantizer.rounding not in ("ROUND", "FLOOR", "CEIL"):
        raise refuse(
            node,
            f"rounding mode {quantizer.rounding} of activations is not supported",
            "Use ROUND, FLOOR or CEIL",
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
        shape=value.shape,
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
    scale = per_channel(node, quantizer.scale.astype(np.float64), value.shape)
    if value.shape[0] << quantizer.bits > MAX_THRESHOLDS:
        raise refuse(
            node,
            f"{value.shape[0]} channels of {quantizer.bits} bits need over {MAX_THRESHOLDS} "
            "thresholds",
            "Quantize before flattening, or pool first",
        )
    folded = fold(
        quantizer,
        gain=value.scale / scale,
        offset=value.bias / scale,
        low=value.low,
        high=value.high,
        floor=value.floor / scale,
        ceiling=value.ceiling / scale,
    )
    ends = np.sort(np.stack([folded.signs * value.low, folded.signs * value.high]), axis=0)
    counts = (ends[:, :, None] >= folded.integers).sum(axis=2)
    codes = Affine(
        ref=str(node.output[0]),
        shape=value.shape,
        bits=quantizer.bits,
        low=quantizer.low + quantizer.step * counts[0],
        high=quantizer.low + quantizer.step * counts[1],
        scale=scale,
        bias=np.zeros(1),
    )
    layer = Threshold(
        **ctx.common(node, codes),
        inputs=(value.ref,),
        thresholds=folded.integers,
        signs=folded.signs,
        base=quantizer.low,
        step=quantizer.step,
    )
    ctx.emit(node, layer, codes)
    ctx.sites.append(Site(layer.name, value.ref, folded, np.abs(value.scale), value.knob))
