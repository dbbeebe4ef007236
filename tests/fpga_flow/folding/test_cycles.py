"""The cycle model against what Verilator counted of the RTL."""

import json

import cycle_bench
import pytest

from fpga_flow.folding.cycles import (
    chain_cycles,
    converter_cycles,
    cycles,
    interval,
    latency_cycles,
    portable_layers,
    searched,
)
from fpga_flow.folding.shapes import POOL, Folding, LayerShape
from fpga_flow.folding.window_cycles import portable_window_cycles, window_cycles, window_possible

ROWS = json.loads(cycle_bench.ROWS.read_text())


def shape_of(row):
    return LayerShape(
        **{"name": "w"}
        | {k: tuple(v) if isinstance(v, list) else v for k, v in row["shape"].items()}
    )


def predicted(row):
    shape, folding, busy = shape_of(row), Folding(**row["folding"]), tuple(row["busy"])
    if row["style"] == "finn":
        return window_cycles(shape, folding, busy)
    if shape.kind == POOL:
        return cycles(shape, folding)
    return portable_window_cycles(shape, folding, busy, row["fifo"])


def test_enough_was_measured():
    assert sum(row["style"] == "finn" for row in ROWS) >= 100
    assert sum(row["style"] == "portable" for row in ROWS) >= 20


@pytest.mark.parametrize("style", ["finn", "portable"])
def test_layers_alone_are_predicted_exactly(style):
    alone = [row for row in ROWS if row["style"] == style and row["busy"][1] == 0]
    assert alone
    assert [predicted(row) for row in alone] == [row["cycles"] for row in alone]


def test_finns_windows_are_exact_behind_any_matrix_too():
    waiting = [row for row in ROWS if row["style"] == "finn" and row["busy"][1] > 0]
    assert waiting
    assert [predicted(row) for row in waiting] == [row["cycles"] for row in waiting]


def test_our_windows_are_within_two_percent_behind_a_matrix():
    # Row by row instead of cycle by cycle: some cycles of a pipeline are not followed.
    waiting = [row for row in ROWS if row["style"] == "portable" and row["busy"][1] > 0]
    assert waiting
    for row in waiting:
        assert predicted(row) == pytest.approx(row["cycles"], rel=0.02)


@pytest.mark.slow
def test_the_rtl_still_takes_as_long(tmp_path):
    cases = cycle_bench.CASES
    measured = cycle_bench.measure(cases, tmp_path)
    rows = [row for row in ROWS if row["style"] == "portable"]
    assert measured == [row["cycles"] for row in rows]


def test_a_stride_that_jumps_over_the_buffer_is_refused_as_by_finn():
    tall = LayerShape(
        name="w", kind="ConvolutionInputGenerator", height=14, width=14, channels=4,
        kernel=(1, 3), stride=(3, 3),
    )  # fmt: skip
    assert not window_possible(tall, Folding(simd=4))
    assert window_possible(tall, Folding(simd=4, parallel_window=True))


@pytest.mark.parametrize(
    ("values", "given", "taken", "expected"),
    [(1200, 4, 6, 400), (1200, 12, 2, 600), (1200, 2, 12, 600), (400, 16, 10, 60), (84, 1, 3, 84)],
)
def test_converters_take_as_long_as_measured(values, given, taken, expected):
    assert converter_cycles(values, given, taken) == expected


def chain():
    """Convolution 3x3 of 8x8 pixels, max pool, dense."""
    return [
        LayerShape(name="pad", kind="FMPadding", height=8, width=8, channels=2, out_channels=2,
                   padding=(1, 1, 1, 1), vectors=100, input_bits=4, output_bits=4),
        LayerShape(name="win", kind="ConvolutionInputGenerator", height=10, width=10, channels=2,
                   out_channels=2, kernel=(3, 3), vectors=64, input_bits=4, output_bits=4),
        LayerShape(name="conv", kind="MVAU", columns=18, channels=18, out_channels=8, vectors=64,
                   input_bits=4, weight_bits=4, output_bits=12),
        LayerShape(name="act", kind="Thresholding", channels=8, out_channels=8, vectors=64,
                   input_bits=12, output_bits=4, weight_bits=12, steps=15),
        LayerShape(name="grid", kind="ConvolutionInputGenerator", height=8, width=8, channels=8,
                   out_channels=8, kernel=(2, 2), stride=(2, 2), vectors=16, depthwise=True,
                   input_bits=4, output_bits=4),
        LayerShape(name="pool", kind="Pool", channels=8, out_channels=8, kernel=(2, 2),
                   vectors=16, input_bits=4, output_bits=4),
        LayerShape(name="fc", kind="MVAU", columns=128, channels=128, out_channels=10,
                   input_bits=4, weight_bits=4, output_bits=12),
    ]  # fmt: skip


def test_a_chain_is_as_slow_as_its_slowest_layer():
    layers = portable_layers(chain())
    folding = {shape.name: Folding() for shape in layers}
    alone = chain_cycles(layers, folding)
    assert alone["conv"] == 64 * 18 * 8
    assert alone["pool"] == 8 * 8 * 8  # it takes the image itself
    assert "grid" not in alone
    assert interval(layers, folding) >= alone["conv"]
    assert latency_cycles(layers, folding) > alone["conv"]


def test_finns_style_keeps_the_window_in_front_of_a_pool():
    layers = chain()
    alone = chain_cycles(layers, {shape.name: Folding() for shape in layers}, "finn")
    assert alone["grid"] > 16 * 4 * 8


def test_converters_are_named_after_the_layer_before():
    layers = portable_layers(chain())
    folding = {shape.name: Folding() for shape in layers} | {"fc": Folding(simd=8)}
    assert chain_cycles(layers, folding)["pool_dwc"] == 128


def test_a_converter_in_front_of_thresholds_moves_every_pixel():
    layers = portable_layers(chain())
    folding = {shape.name: Folding() for shape in layers} | {"conv": Folding(pe=2)}
    assert chain_cycles(layers, folding)["conv_dwc"] == 64 * 8


def test_thresholds_behind_a_slow_matrix_are_searched_in_turn():
    layers = portable_layers(chain())
    slow = searched(layers, {shape.name: Folding() for shape in layers})
    assert slow["act"].in_turn  # 18 cycles a value, and 4 steps take 11
    assert chain_cycles(layers, slow)["act"] == 64 * 8 * 9
    fast = {shape.name: Folding() for shape in layers} | {"conv": Folding(simd=9)}
    assert not searched(layers, fast)["act"].in_turn
