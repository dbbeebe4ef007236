"""Pools, and means, sums and maxima over whole maps."""

import math
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.ir import IntArray, MaxPool, Pads, Pair, SumPool, bits_for
from fpga_flow.lowering.model import refuse
from fpga_flow.lowering.windows import read_window

_LARGEST_FACTOR = 2**16


def max_pool(ctx: Context, node: NodeProto) -> None:
    """Lower a MaxPool; a pending batch norm or ReLU stays pending, a negative scale flips it."""
    if len(node.output) > 1 and node.output[1]:
        raise refuse(node, "it also returns indices", "Use max-pooling without indices")
    window = read_window(ctx, node, attribute(node, "kernel_shape", ()))
    if not window.inside.all():
        raise refuse(node, "one of its windows holds nothing but padding", "Use less padding")
    _maximum(ctx, node, window.kernel, window.strides, window.pads, window.dilations)


def average_pool(ctx: Context, node: NodeProto) -> None:
    """Lower an AveragePool as sums over windows.

    Windows at the edge may count fewer pixels (``ceil_mode``, ``count_include_pad=0``): their sums
    are multiplied so that all windows have one divisor, the least common multiple.
    """
    window = read_window(ctx, node, attribute(node, "kernel_shape", ()))
    if window.dilations != (1, 1):
        raise refuse(node, "it is dilated", "Use an average pool without dilation")
    padded = bool(attribute(node, "count_include_pad", 0))
    counts = window.counted if padded else window.inside
    if not counts.all():
        raise refuse(node, "one of its windows holds nothing but padding", "Use less padding")
    _sum(ctx, node, window.kernel, window.strides, window.pads, counts, window.inside)


def global_average_pool(ctx: Context, node: NodeProto) -> None:
    """Lower a GlobalAveragePool."""
    _whole_map(ctx, node, mean=True)


def global_max_pool(ctx: Context, node: NodeProto) -> None:
    """Lower a GlobalMaxPool."""
    _maximum(ctx, node, _map(ctx, node), (1, 1), (0, 0, 0, 0), (1, 1))


def reduction(ctx: Context, node: NodeProto) -> None:
    """Lower ReduceMean, ReduceSum or ReduceMax over a whole map (dynamo writes pools so)."""
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1:
        axes = ctx.constant(node, 1)
    rank = len(ctx.file_shape(node.input[0])) + 1
    if axes is None or sorted(int(a) % rank for a in axes) != list(range(2, rank)):
        raise refuse(
            node,
            "it averages, adds or compares over other axes than height and width",
            "Use axes (2, 3), or axis 2 of signals (N, C, L)",
        )
    if node.op_type == "ReduceMax":
        global_max_pool(ctx, node)
    else:
        _whole_map(ctx, node, mean=node.op_type == "ReduceMean")


def _map(ctx: Context, node: NodeProto) -> Pair:
    """Height and width of the map that ``node`` reads."""
    shape = ctx.shape(node.input[0])
    if len(shape) != 3:
        raise refuse(node, f"it reads activations of shape {shape}", "Pool over (C, H, W)")
    return shape[1], shape[2]


def _whole_map(ctx: Context, node: NodeProto, mean: bool) -> None:
    shape = _map(ctx, node)
    inside = np.full((1, 1), shape[0] * shape[1])
    counts = inside if mean else np.ones_like(inside)
    _sum(ctx, node, shape, (1, 1), (0, 0, 0, 0), counts, inside)


def _maximum(
    ctx: Context, node: NodeProto, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair
) -> None:
    x = ctx.affine(node)
    value = replace(x, ref=str(node.output[0]), shape=ctx.shape(node.output[0]))
    layer = MaxPool(
        **ctx.common(node, value),
        inputs=(x.ref,),
        signs=np.where(x.scale < 0, -1, 1),
        kernel=kernel,
        strides=strides,
        pads=pads,
        dilations=dilations,
    )
    ctx.emit(node, layer, value)


def _sum(
    ctx: Context,
    node: NodeProto,
    kernel: Pair,
    strides: Pair,
    pads: Pads,
    counts: IntArray,
    inside: IntArray,
) -> None:
    """Emit a SumPool: its windows hold ``inside`` pixels and are divided by ``counts``."""
    x = ctx.affine(node)
    if x.clipped or (np.any(counts > inside) and x.bias.any()):
        raise refuse(
            node,
            "a ReLU, or a bias together with padding, lies between it and the last quantizer",
            "Put the activation quantizer in front of the pooling (Brevitas: QuantReLU)",
        )
    divisor = math.lcm(*map(int, counts.ravel()))
    factors = divisor // counts
    if factors.max() > _LARGEST_FACTOR:
        raise refuse(
            node,
            f"its windows divide by {', '.join(map(str, np.unique(counts)))}, which have no small "
            "common multiple",
            "Set count_include_pad=True and ceil_mode=False",
        )
    least, most = (factors * inside).min(), (factors * inside).max()
    low, high = np.minimum(least * x.low, most * x.low), np.maximum(least * x.high, most * x.high)
    # A sum has the bias of each of its pixels, an average has it once.
    value = replace(
        x.times(np.array(most / divisor)),
        ref=str(node.output[0]),
        shape=ctx.shape(node.output[0]),
        bits=bits_for(int(low.min()), int(high.max())),
        low=low,
        high=high,
        scale=x.scale / divisor,
        roundings=x.roundings + int(inside.max()) + 1,
    )
    layer = SumPool(
        **ctx.common(node, value),
        inputs=(x.ref,),
        kernel=kernel,
        strides=strides,
        pads=pads,
        factors=factors,
    )
    ctx.emit(node, layer, value)
