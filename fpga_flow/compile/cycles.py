"""Clock cycles an image: of every layer alone, and of a chain of layers."""

import itertools
import math
from collections.abc import Mapping, Sequence

from fpga_flow.compile import shapes
from fpga_flow.compile.shapes import Folding, LayerShape, input_lanes, output_lanes
from fpga_flow.compile.window import Busy, window_cycles


def cycles(shape: LayerShape, folding: Folding) -> int:
    """Initiation interval of a layer alone: cycles an image, images back to back.

    Equal to the RTL's, with inputs always there and outputs always taken.

    Example:
        >>> fc = LayerShape(name="fc", kind="MVAU", columns=400, out_channels=120)
        >>> cycles(fc, Folding(pe=4, simd=10))
        1200
    """
    if shape.kind == shapes.WINDOW:
        return window_cycles(shape, folding)
    if shape.kind == shapes.MVAU:
        return shape.vectors * (shape.columns // folding.simd) * (shape.out_channels // folding.pe)
    if shape.kind == shapes.PADDING:
        return shape.outputs // folding.simd
    if shape.kind == shapes.POOL:
        return shape.inputs // folding.pe
    return shape.outputs // folding.pe


def converter_cycles(values: int, in_lanes: int, out_lanes: int) -> int:
    """Cycles an image of a stream width converter for ``values`` integers an image.

    Where neither width is a multiple of the other, one beat can't do both: words are cut into
    pieces, and a piece moves a cycle.

    Example:
        >>> converter_cycles(1200, 4, 6)
        400
    """
    whole = math.lcm(in_lanes, out_lanes)
    a, b = whole // in_lanes, whole // out_lanes
    return values // whole * (a + b - 1)


def fill(shape: LayerShape, folding: Folding) -> int:
    """Cycles from a layer's first input to its first output, inputs always there."""
    if shape.kind == shapes.WINDOW:
        (kh, kw), (dh, dw) = shape.kernel, shape.dilation
        pixels = (kh - 1) * dh * shape.width + (kw - 1) * dw + 1
        return pixels * (shape.channels // folding.simd) + 1
    if shape.kind == shapes.MVAU:
        return shape.columns // folding.simd + 6
    if shape.kind == shapes.POOL:
        return shape.taps
    if shape.kind == shapes.PADDING:
        return 2
    return 2 + math.ceil(math.log2(shape.steps + 1))


def chain_cycles(layers: Sequence[LayerShape], folding: Mapping[str, Folding]) -> dict[str, int]:
    """Cycles an image of every layer where it stands in the chain.

    As ``cycles``, but a window generator waits for the matrix behind it: it starts an image only
    when the one before has left, and the matrix is idle meanwhile. The largest is the chain's
    initiation interval, where FIFOs are deep enough.

    Args:
        layers: in network order.
        folding: by layer name.
    """
    alone = {shape.name: cycles(shape, folding[shape.name]) for shape in layers}
    for before, after in itertools.pairwise(layers):
        if before.kind == shapes.WINDOW and after.kind == shapes.MVAU:
            busy = matrix_busy(before, folding[before.name], after, folding[after.name])
            alone[before.name] = window_cycles(before, folding[before.name], busy)
        lanes = (
            output_lanes(before, folding[before.name]),
            input_lanes(after, folding[after.name]),
        )
        name = f"{before.name}_dwc"
        if lanes[0] != lanes[1]:
            alone[name] = converter_cycles(after.inputs, *lanes)
    return alone


def matrix_busy(window: LayerShape, fold: Folding, matrix: LayerShape, folding: Folding) -> Busy:
    """How a matrix takes windows: (beats of one, cycles without any while it computes)."""
    beats = matrix.columns // output_lanes(window, fold)
    vector = cycles(matrix, folding) // matrix.vectors
    return beats, max(0, vector - beats)


def latency_cycles(layers: Sequence[LayerShape], folding: Mapping[str, Folding]) -> int:
    """Cycles from an image's first input to its last output, the chain empty before.

    An estimate: every layer is taken to work evenly, from the moment it has what its first
    output needs until its last input has come and what is left of it is done.
    """
    first = last = 0.0  # when the layer's first and last inputs come
    for shape in layers:
        one = folding[shape.name]
        own = cycles(shape, one)
        share = _needed(shape)
        begin = first + max(fill(shape, one), share * (last - first))
        rest = own * (1 - share) if shape.kind == shapes.WINDOW else own
        rows = max(1, shape.vectors)
        end = max(
            begin + rest, last + own / rows + fill(shape, one) * (shape.kind != shapes.WINDOW)
        )
        first, last = begin, end
    return round(last)


def _needed(shape: LayerShape) -> float:
    """Share of a layer's inputs that its first output needs."""
    if shape.kind == shapes.WINDOW:
        (kh, kw), (dh, dw) = shape.kernel, shape.dilation
        pixels = (kh - 1) * dh * shape.width + (kw - 1) * dw + 1
        return pixels / (shape.height * shape.width)
    return 1 / max(1, shape.vectors) if shape.kind in (shapes.MVAU, shapes.POOL) else 0.0
