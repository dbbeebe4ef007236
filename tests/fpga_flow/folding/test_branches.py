"""Networks with branches: their structure, what shortcuts hold, cycles, and foldings."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from divqat_brevitas.errors import InputError
from fpga_flow.folding.branches import Parallel, edges, series_parallel, shortcuts
from fpga_flow.folding.cycles import chain_cycles, interval, latency_cycles
from fpga_flow.folding.shapes import Folding, LayerShape
from fpga_flow.folding.solver import Solution, _options, cheapest, evaluate

SIDE = 8
MAP: dict[str, Any] = {"height": SIDE, "width": SIDE, "vectors": SIDE * SIDE}
BITS: dict[str, Any] = {"input_bits": 4, "output_bits": 4}


def convolution(name: str, source: str, channels: int, parallel: bool = False) -> list[LayerShape]:
    """Padding, windows of 3x3, a matrix, thresholds."""
    wide = {"channels": channels, "out_channels": channels}
    padded = {"height": SIDE + 2, "width": SIDE + 2, "kernel": (3, 3), "vectors": SIDE * SIDE}
    return [
        LayerShape(
            name=f"{name}_pad", kind="FMPadding", sources=(source,), padding=(1, 1, 1, 1),
            **wide, **BITS, **MAP | {"vectors": (SIDE + 2) ** 2},
        ),
        LayerShape(
            name=f"{name}_win", kind="ConvolutionInputGenerator", sources=(f"{name}_pad",),
            **padded, **wide, **BITS,
        ),
        LayerShape(
            name=f"{name}_mvau", kind="MVAU", sources=(f"{name}_win",), columns=9 * channels,
            channels=9 * channels, out_channels=channels, vectors=SIDE * SIDE, input_bits=4,
            weight_bits=4, output_bits=12,
        ),
        LayerShape(
            name=f"{name}_act", kind="Thresholding", sources=(f"{name}_mvau",), steps=15,
            vectors=SIDE * SIDE, weight_bits=12, input_bits=12, output_bits=4, **wide,
        ),
    ]  # fmt: skip


def block(
    name: str, source: str, channels: int, convolutions: int, concat: bool = False, first: int = 0
) -> list[LayerShape]:
    """Convolutions beside an identity shortcut; ``first``: which port the join reads first."""
    wide = {"channels": channels, "out_channels": channels}
    layers = [
        LayerShape(name=name, kind="DuplicateStreams", sources=(source,), **wide, **BITS, **MAP)
    ]
    end = f"{name}_0"
    for number in range(convolutions):
        layers += convolution(f"{name}{number}", end, channels)
        end = layers[-1].name
    ports = (end, f"{name}_1") if first == 0 else (f"{name}_1", end)
    join = LayerShape(
        name=f"{name}_add", kind="ElementwiseAdd", sources=ports, input_bits=4,
        output_bits=5, **wide, **MAP,
    )  # fmt: skip
    if concat:
        both = {"kind": "StreamingConcat", "parts": (channels, channels), "output_bits": 4}
        join = replace(join, channels=2 * channels, out_channels=2 * channels, **both)
    return [*layers, join]


def slow(layers: list[LayerShape]) -> dict[str, Folding]:
    return {shape.name: Folding() for shape in layers}


def test_branches_are_found_within_and_behind_one_another() -> None:
    inner = block("inner", "outer_0", 2, 1)
    outer = LayerShape(name="outer", kind="DuplicateStreams", sources=("input",), channels=2)
    join = LayerShape(name="end", kind="ElementwiseAdd", sources=("inner_add", "outer_1"))
    first, parallel = series_parallel([outer, *inner, join])
    assert first == outer
    assert isinstance(parallel, Parallel)
    assert parallel.join == join
    body, shortcut = parallel.branches
    assert shortcut == ()
    assert isinstance(body[-1], Parallel)
    assert body[-1].join.name == "inner_add"


def test_a_layer_that_names_no_source_reads_the_one_before() -> None:
    layers = [LayerShape(name=name, kind="MVAU") for name in "abc"]
    assert [(port, b.name) for port, _, b in edges(layers)] == [("a", "b"), ("b", "c")]


def test_branches_that_do_not_meet_are_refused() -> None:
    fork = LayerShape(name="f", kind="DuplicateStreams", sources=("input",))
    layers = [
        LayerShape(name=name, kind="MVAU", sources=(f"f_{k}",)) for k, name in enumerate("ab")
    ]
    with pytest.raises(InputError, match="branches at f do not meet again in one sum"):
        series_parallel([fork, *layers])


@pytest.mark.parametrize(("convolutions", "rows"), [(1, 2), (2, 3), (3, 4)])
def test_a_shortcut_holds_the_rows_that_windows_wait_for(convolutions: int, rows: int) -> None:
    # A window of 3x3 with padding needs the row it is in, and the one below.
    layers = block("b", "input", 2, convolutions)
    (one,) = shortcuts(layers, slow(layers) | {"b": Folding(pe=2)})
    assert one.port == "b_1"
    # The fork's next pixel waits for the shortcut alone: the windows take it.
    assert one.least == rows * SIDE - 1
    # Two rows more, as a power of two.
    assert one.depth == 1 << ((rows + 2) * SIDE - 2).bit_length()
    folded = shortcuts(layers, slow(layers))[0]
    # A pixel in two beats: the fork's last one waits for the shortcut.
    assert folded.least == 2 * rows * SIDE - 1


def test_a_concatenation_takes_a_pixel_of_the_first_branch_while_it_waits_for_the_second() -> None:
    found = {}
    for first in (0, 1):
        layers = block("b", "input", 2, 1, concat=True, first=first)
        (found[first],) = shortcuts(layers, slow(layers) | {"b": Folding(pe=2)})
        assert found[first].port == "b_1"
        (_, parallel) = series_parallel(layers)
        assert isinstance(parallel, Parallel)
        assert [bool(branch) for branch in parallel.branches] == [first == 0, first == 1]
    assert found[0].least == 2 * SIDE - 1  # the shortcut behind the convolution: as of a sum
    assert found[1].least == found[0].least - 1


def test_branches_of_a_sum_in_any_order_hold_the_same() -> None:
    one, other = (
        shortcuts(layers, slow(layers))
        for layers in (block("b", "input", 2, 1, first=first) for first in (0, 1))
    )
    assert one == other != []


def test_branches_of_equal_windows_hold_nothing() -> None:
    fork = LayerShape(name="f", kind="DuplicateStreams", sources=("input",), channels=2, **MAP)
    left, right = (convolution(f"c{k}", f"f_{k}", 2) for k in range(2))
    ends = (left[-1].name, right[-1].name)
    join = LayerShape(name="j", kind="ElementwiseAdd", sources=ends, channels=2, **MAP)
    layers = [fork, *left, *right, join]
    assert shortcuts(layers, slow(layers)) == []


def test_cycles_and_converters_follow_the_branches() -> None:
    layers = block("b", "input", 2, 1)
    folding = slow(layers) | {"b_add": Folding(pe=2)}
    alone = chain_cycles(layers, folding)
    assert alone["b_add"] == SIDE * SIDE
    assert alone["b0_act_dwc"] == alone["b_1_dwc"] == SIDE * SIDE * 2
    assert interval(layers, folding) == max(alone.values()) == alone["b0_mvau"]
    # The body decides when the last sum leaves.
    assert latency_cycles(layers, folding) > alone["b0_mvau"]


def test_the_solver_finds_the_cheapest_folding_of_a_block() -> None:
    layers = block("b", "input", 2, 1)
    target = SIDE * SIDE * 9
    found = cheapest(layers, target)
    assert found.cycles_per_image <= target
    assert found.layers["b_1" if "b_1" in found.layers else "b"].lut > 0

    def price(solution: Solution) -> float:
        return solution.resources.lut + 0.1 * solution.resources.ff + 400 * solution.resources.bram

    # All foldings of the layers around the sum, the others as found: none is cheaper.
    free = [
        shape
        for shape in layers
        if shape.kind in ("DuplicateStreams", "ElementwiseAdd", "FMPadding")
    ]
    for choice in itertools.product(*(_options(shape) for shape in free)):
        folding = dict(found.folding) | dict(zip((s.name for s in free), choice, strict=True))
        other = evaluate(layers, folding)
        if other.cycles_per_image <= target:
            assert price(found) <= price(other) + 1e-6  # sums of floats in another order
