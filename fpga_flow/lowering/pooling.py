"""MaxPool, AveragePool, GlobalAveragePool and ReduceMean over height and width."""

import math
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.errors import refuse
from fpga_flow.lowering.ir import MaxPool, Pads, Pair, SumPool, bits_for
from fpga_flow.lowering.windows import read_window


def max_pool(ctx: Context, node: NodeProto) -> None:
    """Lower a MaxPool; a pending batch norm or ReLU stays pending, a negative scale flips it."""
    x = ctx.affine(node)
    if len(node.output) > 1 and node.output[1]:
        raise refuse(node, "it also returns indices", "Use max-pooling without indices")
    window = read_window(ctx, node, attribute(node, "kernel_shape", ()))
    value = replace(x, ref=str(node.output[0]), shape=ctx.shape(node.output[0]))
    layer = MaxPool(
        **ctx.common(node, value),
        inputs=(x.ref,),
        signs=np.where(x.scale < 0, -1, 1),
        kernel=window.kernel,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
    )
    ctx.emit(node, layer, value)


def average_pool(ctx: Context, node: NodeProto) -> None:
    """Lower an AveragePool whose windows all count the same number of pixels."""
    window = read_window(ctx, node, attribute(node, "kernel_shape", ()))
    if any(window.pads) and not attribute(node, "count_include_pad", 0):
        raise refuse(
            node, "windows at the edge count fewer pixels", "Set count_include_pad or no padding"
        )
    if window.dilations != (1, 1):
        raise refuse(node, "it is dilated", "Use an average pool without dilation")
    _sum(ctx, node, window.kernel, window.strides, window.pads)


def global_average_pool(ctx: Context, node: NodeProto) -> None:
    """Lower a GlobalAveragePool."""
    _whole_image(ctx, node)


def reduce_mean(ctx: Context, node: NodeProto) -> None:
    """Lower a ReduceMean over height and width (the dynamo exporter's global pooling)."""
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1:
        axes = ctx.constant(node, 1)
    rank = len(ctx.shape(node.input[0])) + 1
    if axes is None or sorted(int(a) % rank for a in axes) != [2, 3]:
        raise refuse(node, "it averages over other axes than height and width", "Use axes (2, 3)")
    _whole_image(ctx, node)


def _whole_image(ctx: Context, node: NodeProto) -> None:
    shape = ctx.shape(node.input[0])
    if len(shape) != 3:
        raise refuse(node, f"it reads activations of shape {shape}", "Pool over (C, H, W)")
    _sum(ctx, node, (shape[1], shape[2]), (1, 1), (0, 0, 0, 0))


def _sum(ctx: Context, node: NodeProto, kernel: Pair, strides: Pair, pads: Pads) -> None:
    x = ctx.affine(node)
    if x.clipped or (any(pads) and x.bias.any()):
        raise refuse(
            node,
            "a ReLU, or a bias together with padding, lies between it and the last quantizer",
            "Put the activation quantizer in front of the pooling (Brevitas: QuantReLU)",
        )
    count = math.prod(kernel)
    low, high = count * x.low, count * x.high
    if any(pads):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    value = replace(
        x,
        ref=str(node.output[0]),
        shape=ctx.shape(node.output[0]),
        bits=bits_for(int(low.min()), int(high.max())),
        low=low,
        high=high,
        scale=x.scale / count,
    )
    layer = SumPool(
        **ctx.common(node, value), inputs=(x.ref,), kernel=kernel, strides=strides, pads=pads
    )
    ctx.emit(node, layer, value)
