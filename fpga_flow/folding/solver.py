"""Foldings by search: the cheapest one that is fast enough, or the fastest one that fits.

What a layer costs depends on its own folding, and on its neighbour's where their streams differ in
width (a converter goes between) or a matrix makes a window generator wait. So the cheapest folding
of a chain is a shortest path, layer by layer. Of branches it is the sum of the cheapest chains, for
every folding of the fork and of the sum at their ends.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.folding import shapes
from fpga_flow.folding.branches import Element, Parallel, edges, owners, series_parallel, shortcuts
from fpga_flow.folding.cost import (
    converter_cost,
    fifo_cost,
    layer_cost,
    multipliers,
    weight_blocks,
)
from fpga_flow.folding.cycles import (
    FIFO_DEPTH,
    chain_cycles,
    converter_cycles,
    cycles,
    interval,
    latency_cycles,
    matrix_busy,
    searches_in_turn,
    together,
)
from fpga_flow.folding.shapes import Folding, LayerShape, input_lanes, output_lanes
from fpga_flow.folding.window_cycles import window_possible
from fpga_flow.targets import Resources

# Share of a device that a design may take: beyond 80 % of the logic cells routing gets slow.
SHARE = Resources(lut=0.80, ff=0.80, bram=0.95, dsp=1.0)
SHELL = Resources(lut=700, ff=500)  # the host interface around the network
# Tried in turn: how many logic cells a block RAM is worth.
_PRICES = (400.0, 100.0, 1600.0, 6400.0, 25.0)
_MUCH_FASTER = 6  # foldings this many times faster than asked for only cost more


@dataclass(frozen=True)
class Solution(ShortRepr):
    """A folding, and what it is expected to give.

    Attributes:
        folding: by layer name.
        cycles: cycles an image of every single layer and converter.
        cycles_per_image: of the whole chain.
        layers: cells of every layer with the FIFO behind it and the converter in front.
        resources: cells of all layers, and of the host interface.
        latency: cycles from the first pixel to the last output, the chain empty.
    """

    folding: Mapping[str, Folding]
    cycles: Mapping[str, int]
    cycles_per_image: int
    layers: Mapping[str, Resources]
    resources: Resources
    latency: int

    @property
    def slowest(self) -> str:
        """Name of the slowest layer or converter."""
        return max(self.cycles, key=lambda name: self.cycles[name])

    def finn(self, layers: Sequence[LayerShape]) -> dict[str, dict[str, int | str]]:
        """The folding as FINN's folding JSON.

        Args:
            layers: what was solved for.
        """
        found: dict[str, dict[str, int | str]] = {}
        for shape in layers:
            folding = self.folding[shape.name]
            if shape.fused:
                found[shape.fused] = {"SIMD": folding.pe, "parallel_window": 0}
            lanes: dict[str, int | str] = {"PE": folding.pe}
            if shape.kind in (shapes.MVAU, shapes.WINDOW, shapes.PADDING, shapes.CONCAT):
                lanes = {"SIMD": folding.simd}
            if shape.kind in shapes.PRODUCTS:
                lanes |= {"PE": folding.pe, "SIMD": folding.simd}
            if shape.kind == shapes.WINDOW:
                lanes["parallel_window"] = int(folding.parallel_window)
            if folding.dsp:
                lanes["resType"] = "dsp"
            found[shape.name] = lanes
        return found


def fits(resources: Resources, budget: Resources) -> bool:
    """Whether ``resources`` are within ``budget`` in every kind of cell."""
    return (
        resources.lut <= budget.lut
        and resources.ff <= budget.ff
        and resources.bram <= budget.bram
        and resources.dsp <= budget.dsp
    )


def budget(capacity: Resources, share: Resources = SHARE) -> Resources:
    """What of a device a network may take."""
    return Resources(
        capacity.lut * share.lut,
        capacity.ff * share.ff,
        capacity.bram * share.bram,
        capacity.dsp * share.dsp,
    )


def evaluate(layers: Sequence[LayerShape], folding: Mapping[str, Folding]) -> Solution:
    """What a given folding is expected to give.

    Args:
        layers: in network order.
        folding: by layer name, of all of them.
    """
    costs = {shape.name: _own_cost(shape, folding[shape.name]) for shape in layers}
    for _, before, shape in edges(layers):
        costs[shape.name] += _between(before, folding[before.name], shape, folding[shape.name])
    owner = owners(layers)
    for one in shortcuts(layers, folding):
        shape = owner[one.port]
        bits = output_lanes(shape, folding[shape.name]) * shape.output_bits
        deep, usual = fifo_cost(one.depth, bits), _fifo_cost(bits)
        more = {kind: getattr(deep, kind) - getattr(usual, kind) for kind in ("lut", "ff", "bram")}
        costs[shape.name] += Resources(**more)
    matrices = {s.name: (s, folding[s.name]) for s in layers if s.kind in shapes.PRODUCTS}
    apart = sum(weight_blocks({name: one}) for name, one in matrices.items())
    saved = Resources(bram=weight_blocks(matrices) - apart)
    return Solution(
        folding=dict(folding),
        cycles=chain_cycles(layers, folding),
        cycles_per_image=interval(layers, folding),
        layers=costs,
        resources=sum(costs.values(), SHELL) + saved,
        latency=latency_cycles(layers, folding),
    )


def cheapest(
    layers: Sequence[LayerShape], target_cycles: int, within: Resources | None = None
) -> Solution:
    """The cheapest folding with every layer at most ``target_cycles`` an image.

    Args:
        layers: in network order.
        target_cycles: clock frequency / images a second.
        within: what it may take; None: anything, and no multipliers. Of those, matrices get as
            many as save the most logic.

    Raises:
        InputError: not even the most parallel folding is as fast.
        CheckFailedError: it exists, and does not fit.

    Example:
        >>> fc = LayerShape(name="fc", kind="MVAU", columns=64, out_channels=10, input_bits=2,
        ...     weight_bits=2, output_bits=8)
        >>> cheapest([fc], 100).cycles_per_image <= 100
        True
    """
    spare = 0 if within is None else int(within.dsp)
    best = _at_price(layers, target_cycles, _PRICES[0], spare)
    if within is None or fits(best.resources, within):
        return best
    for price in _PRICES[1:]:
        other = _at_price(layers, target_cycles, price, spare)
        if fits(other.resources, within):
            return other
    largest = max(best.layers, key=lambda name: best.layers[name].lut)
    raise CheckFailedError(
        f"A folding of {target_cycles} cycles an image takes about {best.resources.lut:.0f} logic "
        f"cells and {best.resources.bram:.0f} block RAMs; {within.lut:.0f} and {within.bram:.0f} "
        f"may be taken. The largest layer is {largest}. Ask for fewer images a second, or take a "
        "larger device."
    )


def _at_price(
    layers: Sequence[LayerShape], target_cycles: int, bram: float, spare: int
) -> Solution:
    path = _shortest(tuple(layers), target_cycles, bram)
    if path is None:
        least = max(min(cycles(s, f) for f in _options(s)) for s in layers)
        raise InputError(
            f"No folding takes {target_cycles} cycles an image or fewer: the fastest takes "
            f"about {least}. Ask for fewer images a second, or a higher clock frequency."
        )
    return evaluate(layers, _with_multipliers(layers, path, spare))


def _with_multipliers(
    layers: Sequence[LayerShape], folding: Mapping[str, Folding], spare: int
) -> dict[str, Folding]:
    """``folding`` with multipliers in the matrices where ``spare`` of them save the most logic.

    A knapsack: by the number of multipliers taken, the most logic saved and where.
    """
    best: dict[int, tuple[float, tuple[str, ...]]] = {0: (0.0, ())}
    for shape in layers:
        one = folding[shape.name]
        count = multipliers(shape, one)
        if not 0 < count <= spare:
            continue
        saved = _layer_cost(shape, one).lut - _layer_cost(shape, replace(one, dsp=True)).lut
        for taken, (sum_saved, names) in sorted(best.items(), reverse=True):
            total = taken + count
            if total <= spare and sum_saved + saved > best.get(total, (0.0,))[0]:
                best[total] = sum_saved + saved, (*names, shape.name)
    _, chosen = max(best.values(), key=lambda way: way[0])
    return {name: replace(one, dsp=name in chosen) for name, one in folding.items()}


def fastest(layers: Sequence[LayerShape], within: Resources, at_least_cycles: int = 1) -> Solution:
    """The fastest folding that fits.

    Args:
        layers: in network order.
        within: what it may take.
        at_least_cycles: no need to be faster than that.

    Raises:
        CheckFailedError: not even the slowest folding fits.
    """
    slow = evaluate(layers, {shape.name: Folding() for shape in layers}).cycles_per_image
    found = _slowest_that_fits(layers, slow, within, at_least_cycles)
    low, high = max(1, at_least_cycles), found.cycles_per_image
    while high - low > max(1, low // 100):
        middle = round(math.sqrt(low * high))
        try:
            found = cheapest(layers, middle, within)
        except (InputError, CheckFailedError):
            low = max(middle, low + 1)
        else:
            high = found.cycles_per_image
    return found


def _slowest_that_fits(
    layers: Sequence[LayerShape], slow: int, within: Resources, least: int
) -> Solution:
    """Where the search starts: deep, narrow memories of a slow folding can waste block RAM."""
    while True:
        try:
            return cheapest(layers, slow, within)
        except CheckFailedError:
            if slow // 2 < least or not any(s.kind in shapes.PRODUCTS for s in layers):
                raise
            slow //= 2
        except InputError:
            return cheapest(layers, 2 * slow, within)


def _own_cost(shape: LayerShape, folding: Folding) -> Resources:
    bits = output_lanes(shape, folding) * shape.output_bits
    return _layer_cost(shape, folding) + _fifo_cost(bits)


_layer_cost = functools.lru_cache(maxsize=None)(layer_cost)


@functools.cache
def _fifo_cost(bits: int) -> Resources:
    return fifo_cost(FIFO_DEPTH, bits)


def _between(a: LayerShape, fa: Folding, b: LayerShape, fb: Folding) -> Resources:
    lanes = output_lanes(a, fa), input_lanes(b, fb)
    if lanes[0] == lanes[1]:
        return Resources()
    return _converter(a.outputs, a.output_bits, *lanes)


@functools.cache
def _converter(values: int, bits: int, lanes_in: int, lanes_out: int) -> Resources:
    return converter_cost(values, bits, lanes_in, lanes_out) + _fifo_cost(lanes_out * bits)


def _price(cost: Resources, bram: float) -> float:
    # A flip-flop comes free with a logic cell, where there are not more of them.
    return cost.lut + 0.1 * cost.ff + bram * cost.bram


@functools.lru_cache(maxsize=1024)
def _options(shape: LayerShape) -> tuple[Folding, ...]:
    """All foldings a layer can have."""
    if shape.kind == shapes.MVAU:
        pairs = itertools.product(_divisors(shape.out_channels), _divisors(shape.columns))
        return tuple(Folding(pe, simd) for pe, simd in pairs)
    if shape.kind == shapes.WINDOW:
        found = [Folding(simd=simd) for simd in _divisors(shape.channels)]
        if not shape.depthwise and shape.taps > 1:
            found.append(Folding(simd=shape.channels, parallel_window=True))
        return tuple(one for one in found if window_possible(shape, one))
    if shape.kind == shapes.PADDING:
        return tuple(Folding(simd=simd) for simd in _divisors(shape.channels))
    if shape.kind == shapes.CONCAT:
        return tuple(Folding(simd=simd) for simd in _divisors(math.gcd(*shape.parts)))
    if shape.kind == shapes.THRESHOLDING:
        lanes = itertools.product(_divisors(shape.out_channels), (False, True))
        return tuple(Folding(pe=pe, in_turn=in_turn) for pe, in_turn in lanes)
    return tuple(Folding(pe=pe) for pe in _divisors(shape.out_channels))


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _candidates(shape: LayerShape, target: int) -> list[Folding]:
    """Foldings that are fast enough, without those that are needlessly fast."""
    timed = [(cycles(shape, folding), folding) for folding in _options(shape)]
    good = [(time, folding) for time, folding in timed if time <= target]
    if not good:
        return []
    if shape.kind != shapes.MVAU:
        return [folding for _, folding in good]
    slowest = max(time for time, _ in good)
    return [folding for time, folding in good if time * _MUCH_FASTER >= slowest]


_Path = tuple[tuple[str, Folding], ...]
_Reached = dict[Folding, tuple[float, _Path]]  # the last layer's folding -> cost, all foldings


def _shortest(
    layers: tuple[LayerShape, ...], target: int, bram: float
) -> dict[str, Folding] | None:
    """The cheapest foldings, by dynamic programming."""
    search = _Search(target, bram)
    first, *others = series_parallel(layers)
    assert isinstance(first, LayerShape)
    _, reached = search.along(others, first, search.start(first))
    if not reached:
        return None
    return dict(min(reached.values(), key=lambda way: way[0])[1])


@dataclass(frozen=True)
class _Search:
    target: int
    bram: float

    def start(self, shape: LayerShape) -> _Reached:
        """The first layer's foldings."""
        return {
            folding: (self._own(shape, folding), ((shape.name, folding),))
            for folding in _candidates(shape, self.target)
            if not folding.in_turn
        }

    def along(
        self, elements: Sequence[Element], before: LayerShape, reached: _Reached
    ) -> tuple[LayerShape, _Reached]:
        """The elements' last layer, and the cheapest ways to its foldings."""
        for element in elements:
            if isinstance(element, Parallel):
                reached = self._across(element, before, reached)
                before = element.join
            else:
                found = {
                    folding: way
                    for folding in _candidates(element, self.target)
                    if (way := self._step(before, reached, element, folding)) is not None
                }
                before, reached = element, found
        return before, reached

    def _step(
        self, before: LayerShape, reached: _Reached, shape: LayerShape, folding: Folding
    ) -> tuple[float, _Path] | None:
        """The cheapest way to one folding of the layer behind ``before``."""
        way = self._to(before, reached, shape, folding)
        if way is None:
            return None
        return way[0] + self._own(shape, folding), (*way[1], (shape.name, folding))

    def _to(
        self, before: LayerShape, reached: _Reached, shape: LayerShape, folding: Folding
    ) -> tuple[float, _Path] | None:
        """The cheapest way to the input of one folding of the layer behind ``before``."""
        ways = sorted(
            (
                (cost + _price(_between(before, former, shape, folding), self.bram), former, path)
                for former, (cost, path) in reached.items()
            ),
            key=lambda way: way[0],
        )
        for cost, former, path in ways:
            if _compatible(before, former, shape, folding, self.target):
                return cost, path
        return None

    def _across(self, element: Parallel, fork: LayerShape, reached: _Reached) -> _Reached:
        """From a fork's foldings to those of the sum where its branches meet."""
        found: _Reached = {}
        for former, (cost, path) in reached.items():
            ends = [self.along(one, fork, {former: (0.0, ())}) for one in element.branches]
            for folding in _candidates(element.join, self.target):
                ways = [self._to(last, ways, element.join, folding) for last, ways in ends]
                if any(way is None for way in ways):
                    continue
                inside = [way for way in ways if way is not None]
                total = cost + self._own(element.join, folding) + sum(one for one, _ in inside)
                if folding not in found or total < found[folding][0]:
                    steps = itertools.chain.from_iterable(more for _, more in inside)
                    found[folding] = total, (*path, *steps, (element.join.name, folding))
        return found

    def _own(self, shape: LayerShape, folding: Folding) -> float:
        return _price(_own_cost(shape, folding), self.bram)


def _compatible(a: LayerShape, fa: Folding, b: LayerShape, fb: Folding, target: int) -> bool:
    """Whether two layers can stand behind each other, fast enough."""
    lanes = output_lanes(a, fa), input_lanes(b, fb)
    in_turns = b.kind == shapes.VVAU or (b.kind == shapes.POOL and not b.fused)
    if in_turns and lanes[0] != lanes[1]:
        return False  # the order of a depthwise window's elements depends on its SIMD
    if lanes[0] != lanes[1] and converter_cycles(a.outputs, *lanes) > target:
        return False
    if b.kind == shapes.THRESHOLDING and fb.in_turn != searches_in_turn(a, fa, b, fb.pe):
        return False
    if a.kind == shapes.WINDOW and b.kind == shapes.MVAU:
        idle = matrix_busy(a, fa, b, fb)[1]
        if cycles(a, fa) + b.vectors * idle > target:
            return together(a, fa, b, fb, "portable") <= target
    return True
