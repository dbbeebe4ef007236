"""Clock cycles an image: of every single layer, and of a network of layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fpga_flow.folding import shapes
from fpga_flow.folding.branches import INPUT, edges, owners, sources
from fpga_flow.folding.shapes import Folding, LayerShape, input_lanes, output_lanes
from fpga_flow.folding.window_cycles import Busy, portable_window_cycles, window_cycles

FIFO_DEPTH = 16  # entries of the FIFOs between layers, where nobody sized them


def cycles(shape: LayerShape, folding: Folding, style: str = "portable") -> int:
    """Initiation interval of a single layer: cycles an image, images back to back.

    Equal to the RTL's, with inputs always there and outputs always taken.

    Args:
        shape: the layer; for the portable style, of ``portable_layers``.
        folding: its folding.
        style: of the design: ``"portable"`` or ``"finn"``.

    Example:
        >>> fc = LayerShape(name="fc", kind="MVAU", columns=400, out_channels=120)
        >>> cycles(fc, Folding(pe=4, simd=10))
        1200
    """
    if shape.kind == shapes.WINDOW:
        if style == "finn":
            return window_cycles(shape, folding)
        return portable_window_cycles(shape, folding)
    if shape.kind in shapes.PRODUCTS:
        return shape.vectors * (shape.columns // folding.simd) * (shape.out_channels // folding.pe)
    if shape.kind in (shapes.PADDING, shapes.CONCAT):
        return shape.outputs // folding.simd
    if shape.kind in (shapes.POOL, shapes.SUM):
        return shape.inputs // folding.pe
    if folding.in_turn:
        return shape.outputs // folding.pe * (2 * shape.steps.bit_length() + 1)
    return shape.outputs // folding.pe


def portable_layers(layers: Sequence[LayerShape]) -> tuple[LayerShape, ...]:
    """``layers`` as the portable style builds them: max pools that take the image themselves.

    The window generator in front of such a pool goes; it has to have as many lanes.
    """
    owner, reading = owners(layers), sources(layers)
    found = {shape.name: shape for shape in layers}
    for shape in layers:
        before = owner.get(reading[shape.name][0])
        if (
            shape.kind == shapes.POOL
            and before is not None
            and before.kind == shapes.WINDOW
            and before.stride == before.kernel
            and before.dilation == (1, 1)
        ):
            found[shape.name] = replace(
                shape,
                fused=before.name,
                height=before.height,
                width=before.width,
                sources=before.sources,
            )
            del found[before.name]
    return tuple(found.values())


def searches_in_turn(before: LayerShape, former: Folding, shape: LayerShape, pe: int) -> bool:
    """Whether the generator lets a layer of thresholds compare them one after the other."""
    if before.kind not in shapes.PRODUCTS or shape.kind != shapes.THRESHOLDING or former.pe != pe:
        return False
    return before.columns // former.simd >= 2 * shape.output_bits + 3


def searched(layers: Sequence[LayerShape], folding: Mapping[str, Folding]) -> dict[str, Folding]:
    """``folding`` with ``in_turn`` set as the generator will decide."""
    found = {shape.name: folding[shape.name] for shape in layers}
    for _, before, after in edges(layers):
        one = found[after.name]
        if searches_in_turn(before, found[before.name], after, one.pe):
            found[after.name] = replace(one, in_turn=True)
    return found


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
    if shape.kind in shapes.PRODUCTS:
        return shape.columns // folding.simd + 6
    if shape.kind == shapes.POOL:
        return shape.taps if not shape.fused else 2
    if shape.kind in (shapes.PADDING, shapes.FORK, shapes.JOIN, shapes.CONCAT, shapes.SHIFT):
        return 2
    if shape.kind == shapes.SUM:
        return shape.inputs // folding.pe + 1
    return 2 + math.ceil(math.log2(shape.steps + 1))


def chain_cycles(
    layers: Sequence[LayerShape], folding: Mapping[str, Folding], style: str = "portable"
) -> dict[str, int]:
    """Cycles an image of every single layer, and of the converters between them.

    Args:
        layers: in network order; for the portable style, of ``portable_layers``.
        folding: by layer name.
        style: of the design.

    Returns:
        by layer, and by converter (``<port>_dwc``).
    """
    alone = {shape.name: cycles(shape, folding[shape.name], style) for shape in layers}
    for port, before, after in edges(layers):
        lanes = (
            output_lanes(before, folding[before.name]),
            input_lanes(after, folding[after.name]),
        )
        if lanes[0] != lanes[1]:
            alone[f"{port}_dwc"] = converter_cycles(before.outputs, *lanes)
    return alone


def interval(
    layers: Sequence[LayerShape], folding: Mapping[str, Folding], style: str = "portable"
) -> int:
    """Cycles an image of the whole chain, images back to back.

    The slowest layer decides; a matrix also waits where the windows before it come in bursts.
    """
    waits = (
        together(a, folding[a.name], b, folding[b.name], style)
        for _, a, b in edges(layers)
        if a.kind == shapes.WINDOW and b.kind == shapes.MVAU
    )
    return max(*chain_cycles(layers, folding, style).values(), *waits, 1)


def together(
    window: LayerShape, fold: Folding, matrix: LayerShape, folding: Folding, style: str
) -> int:
    """Cycles an image of a window generator with the matrix behind it."""
    busy = matrix_busy(window, fold, matrix, folding)
    if style == "finn":
        return window_cycles(window, fold, busy)
    return portable_window_cycles(window, fold, busy, FIFO_DEPTH)


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
    owner, reading = owners(layers), sources(layers)
    times = {"": (0.0, 0.0)}  # by layer: when its first and last outputs leave
    for shape in layers:
        ports = [port for port in reading[shape.name] if port != INPUT]
        come = [times[owner[port].name] for port in ports] or [times[""]]
        first, last = (max(moments) for moments in zip(*come, strict=True))
        one = folding[shape.name]
        own = cycles(shape, one)
        share = _needed(shape)
        begin = first + max(fill(shape, one), share * (last - first))
        rest = own * (1 - share) if shape.kind == shapes.WINDOW else own
        rows = max(1, shape.vectors)
        end = max(
            begin + rest, last + own / rows + fill(shape, one) * (shape.kind != shapes.WINDOW)
        )
        times[shape.name] = begin, end
    return round(times[layers[-1].name][1])


def _needed(shape: LayerShape) -> float:
    """Share of a layer's inputs that its first output needs."""
    if shape.kind == shapes.WINDOW or shape.fused:
        (kh, kw), (dh, dw) = shape.kernel, shape.dilation
        pixels = (kh - 1) * dh * shape.width + (kw - 1) * dw + 1
        return pixels / (shape.height * shape.width)
    if shape.kind == shapes.SUM:
        return 1.0
    own = shape.kind in (*shapes.PRODUCTS, shapes.POOL)
    return 1 / max(1, shape.vectors) if own else 0.0
