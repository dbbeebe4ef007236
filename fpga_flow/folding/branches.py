"""Networks with branches: which layer reads which, and how much a shortcut has to hold.

A layer's output is a *port*, named as the layer; a fork (``DuplicateStreams``) has one a branch,
``<fork>_0``, ``<fork>_1``, ... The image is the port ``input``. Branches leave a fork and meet in
one join, a sum or a concatenation, with further branches inside of them or behind one another: a
series-parallel graph.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from divqat_brevitas.errors import InputError
from fpga_flow.folding import shapes
from fpga_flow.folding.shapes import Folding, LayerShape, output_lanes
from fpga_flow.folding.window_cycles import has_own_module, output_size

INPUT = "input"
# Rows that a shortcut holds beyond what it must, so that it never makes the other branch wait.
_SPARE_ROWS = 2


class TangledError(InputError):
    """Branches do not meet again in one sum or concatenation.

    Attributes:
        layer: name of the layer that they leave or reach.
    """

    def __init__(self, layer: str) -> None:
        super().__init__(
            f"The branches at {layer} do not meet again in one sum or concatenation: no folding is "
            "known for such a network. Let every branch that leaves a layer end in the same one."
        )
        self.layer = layer


@dataclass(frozen=True)
class Parallel:
    """Branches between a fork and a join.

    Attributes:
        branches: the elements of each, in the order of the join's inputs; empty: nothing between.
        join: the sum or concatenation.
    """

    branches: tuple[tuple["Element", ...], ...]
    join: LayerShape


Element = LayerShape | Parallel


def sources(layers: Sequence[LayerShape]) -> dict[str, tuple[str, ...]]:
    """The ports that each layer reads; a layer that names none reads the one before it."""
    before = INPUT
    found = {}
    for shape in layers:
        found[shape.name] = shape.sources or (before,)
        before = shape.name
    return found


def owners(layers: Sequence[LayerShape]) -> dict[str, LayerShape]:
    """Port -> the layer whose output it is."""
    named = {shape.name: shape for shape in layers}
    for ports in sources(layers).values():
        for port in ports:
            fork = named.get(port.rpartition("_")[0])
            if fork is not None and fork.kind == shapes.FORK:
                named.setdefault(port, fork)
    return named


def edges(layers: Sequence[LayerShape]) -> Iterator[tuple[str, LayerShape, LayerShape]]:
    """(port, the layer it is of, a layer that reads it), in the order of the readers."""
    owner, reading = owners(layers), sources(layers)
    for shape in layers:
        for port in reading[shape.name]:
            if port != INPUT:
                yield port, owner[port], shape


def series_parallel(layers: Sequence[LayerShape]) -> tuple[Element, ...]:
    """The layers from the first to the last, branches side by side.

    Args:
        layers: in an order in which each comes behind those it reads.

    Raises:
        TangledError: branches that do not meet in one join.

    Example:
        >>> a, b = LayerShape(name="a", kind="MVAU"), LayerShape(name="b", kind="MVAU")
        >>> series_parallel([a, b]) == (a, b)
        True
    """
    reading = sources(layers)
    readers: dict[str, list[LayerShape]] = {}
    for _, before, shape in edges(layers):
        readers.setdefault(before.name, []).append(shape)
    found, end = _walk(layers[0], readers, reading)
    if end is not None:
        raise TangledError(end.name)
    return tuple(found)


def _walk(
    start: LayerShape,
    readers: Mapping[str, list[LayerShape]],
    reading: Mapping[str, tuple[str, ...]],
) -> tuple[list[Element], LayerShape | None]:
    """The elements from a layer to the network's end, or to the join it runs into."""
    found: list[Element] = [start]
    layer = start
    while after := readers.get(layer.name, []):
        if len(after) == 1:
            (layer,) = after
            if len(reading[layer.name]) > 1:
                return found, layer
            found.append(layer)
            continue
        branches: dict[str, tuple[Element, ...]] = {}  # by the port they end in
        joins: list[LayerShape | None] = []
        for first in after:
            direct = len(reading[first.name]) > 1
            inside, end = ([], first) if direct else _walk(first, readers, reading)
            if inside:
                branches[_last(inside).name] = tuple(inside)
            joins.append(end)
        join = joins[0]
        if join is None or any(one != join for one in joins):
            raise TangledError(layer.name)
        if len(joins) != len(reading[join.name]):
            raise TangledError(join.name)
        # Other ports are the fork's own.
        found.append(Parallel(tuple(branches.get(port, ()) for port in reading[join.name]), join))
        layer = join
    return found, None


def _last(elements: Sequence[Element]) -> LayerShape:
    end = elements[-1]
    return end.join if isinstance(end, Parallel) else end


@dataclass(frozen=True)
class Shortcut:
    """The FIFO in front of a join that holds what comes too early.

    Attributes:
        port: behind which it stands: its name is ``<port>_fifo``.
        least: beats that it has to hold, or the network hangs. (A portable FIFO deeper than 2 holds
            one more than its depth, in its output register.)
        depth: beats with which no branch waits for the other; a power of two.
    """

    port: str
    least: int
    depth: int


def shortcuts(layers: Sequence[LayerShape], folding: Mapping[str, Folding]) -> list[Shortcut]:
    """The FIFOs that have to hold rows of the map, in network order.

    A window needs whole rows of its map before it gives anything. Meanwhile the fork goes on, and
    what the other branch gives waits in front of the join. A sum takes a pixel of all branches at
    once; a concatenation takes one of the first branch while it waits for the second.

    Args:
        layers: in network order; for the portable style, of ``cycles.portable_layers``.
        folding: by layer name.
    """
    found: list[Shortcut] = []
    _find(series_parallel(layers), layers, folding, found)
    return found


def _find(
    elements: Sequence[Element],
    layers: Sequence[LayerShape],
    folding: Mapping[str, Folding],
    found: list[Shortcut],
) -> None:
    for element in elements:
        if isinstance(element, LayerShape):
            continue
        for branch in element.branches:
            _find(branch, layers, folding, found)
        count = element.join.vectors
        needs = [
            [_needed(branch, folding, pixel) for pixel in range(count)]
            for branch in element.branches
        ]
        in_turn = element.join.kind == shapes.CONCAT
        slowest = _slowest(needs)
        for k, (port, own) in enumerate(
            zip(sources(layers)[element.join.name], needs, strict=True)
        ):
            before = _slowest(needs[:k]) if in_turn else slowest
            behind = _slowest(needs[k + 1 :]) if in_turn else []
            ahead = max(_ahead(own, before), _ahead(own, behind) - 1)
            if ahead > 0:
                found.append(_shortcut(element.join, port, ahead, owners(layers)[port], folding))


def _slowest(needs: Sequence[Sequence[int]]) -> list[int]:
    return [max(pixels) for pixels in zip(*needs, strict=True)]


def _ahead(own: Sequence[int], others: Sequence[int]) -> int:
    """Pixels by which a branch must be able to run ahead, for others to give their next."""
    ahead = given = 0
    for pixel, needed in enumerate(others):
        while given < len(own) and own[given] < needed:
            given += 1
        ahead = max(ahead, given - pixel)
    return ahead


def _shortcut(
    join: LayerShape, port: str, ahead: int, owner: LayerShape, folding: Mapping[str, Folding]
) -> Shortcut:
    beats = owner.out_channels // output_lanes(owner, folding[owner.name])
    # The beats of one more pixel but its last, which the fork gives to the other branch first.
    least = (ahead + 1) * beats - 1
    wanted = least + _SPARE_ROWS * join.width * beats
    return Shortcut(port, least, 1 << (wanted - 1).bit_length())


def _needed(branch: Sequence[Element], folding: Mapping[str, Folding], pixel: int) -> int:
    """Pixels that enter a branch before the given one leaves it."""
    for element in reversed(branch):
        if isinstance(element, Parallel):
            pixel = max(_needed(inner, folding, pixel) for inner in element.branches) - 1
        else:
            pixel = _own_need(element, folding[element.name], pixel) - 1
    return pixel + 1


def _own_need(shape: LayerShape, folding: Folding, pixel: int) -> int:
    size = shape.height * shape.width
    if shape.kind == shapes.PADDING:
        top, left, _, right = shape.padding
        row, column = divmod(pixel, shape.width + left + right)
        inside = min(max(column - left + 1, 0), shape.width)
        return min(max((row - top) * shape.width + inside, 0), size)
    if shape.kind == shapes.WINDOW or shape.fused:
        (kh, kw), (sh, sw), (dh, dw) = shape.kernel, shape.stride, shape.dilation
        columns = shape.width // kw if shape.fused else output_size(shape)[1]
        row, column = divmod(pixel, columns)
        if shape.fused:
            return ((row + 1) * kh - 1) * shape.width + (column + 1) * kw
        rows = row * sh + (kh - 1) * dh
        whole = not folding.parallel_window and has_own_module(shape, folding)
        if whole:
            return (rows + 1) * shape.width
        return rows * shape.width + column * sw + (kw - 1) * dw + 1
    if shape.kind == shapes.SUM:
        return size
    return pixel + 1
