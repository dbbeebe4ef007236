"""The folding solver: fast enough, within the device, legal, and not needlessly large."""

import itertools
import math
from dataclasses import replace

import pytest

from divqat_brevitas.errors import CheckFailedError, InputError
from fpga_flow.compile.compile_settings import CompileSettings
from fpga_flow.compile.solving import Request
from fpga_flow.folding import cost
from fpga_flow.folding.cycles import cycles, portable_layers, searched
from fpga_flow.folding.shapes import MVAU, POOL, THRESHOLDING, Folding, LayerShape
from fpga_flow.folding.solver import budget, cheapest, evaluate, fastest, fits
from fpga_flow.targets import Resources, open_target


def conv(name, size, channels, filters, kernel=3):
    """The layers of a convolution on ``size`` x ``size`` pixels, and of its activation."""
    out = size - kernel + 1
    columns = channels * kernel * kernel
    return [
        LayerShape(name=f"{name}_win", kind="ConvolutionInputGenerator", height=size, width=size,
                   channels=channels, out_channels=channels, kernel=(kernel, kernel),
                   vectors=out * out, input_bits=2, output_bits=2),
        LayerShape(name=name, kind=MVAU, columns=columns, channels=columns, out_channels=filters,
                   vectors=out * out, input_bits=2, weight_bits=2, output_bits=10),
        LayerShape(name=f"{name}_act", kind=THRESHOLDING, channels=filters, out_channels=filters,
                   vectors=out * out, input_bits=10, output_bits=2, weight_bits=10, steps=3),
    ]  # fmt: skip


def pool(name, size, channels):
    return [
        LayerShape(name=f"{name}_win", kind="ConvolutionInputGenerator", height=size, width=size,
                   channels=channels, out_channels=channels, kernel=(2, 2), stride=(2, 2),
                   vectors=(size // 2) ** 2, depthwise=True, input_bits=2, output_bits=2),
        LayerShape(name=name, kind=POOL, channels=channels, out_channels=channels, kernel=(2, 2),
                   vectors=(size // 2) ** 2, input_bits=2, output_bits=2),
    ]  # fmt: skip


def dense(name, columns, rows):
    return [
        LayerShape(name=name, kind=MVAU, columns=columns, channels=columns, out_channels=rows,
                   input_bits=2, weight_bits=2, output_bits=12)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def network():
    return portable_layers(
        [*conv("a", 14, 2, 8), *pool("b", 12, 8), *conv("c", 6, 8, 16), *dense("d", 256, 10)]
    )


@pytest.mark.parametrize("target", [20_000, 5_000, 1_000, 300])
def test_the_cheapest_folding_is_fast_enough(network, target):
    assert cheapest(network, target).cycles_per_image <= target


def test_faster_costs_more(network):
    amounts = [cheapest(network, target).resources.lut for target in (20_000, 2_000, 300)]
    assert amounts == sorted(amounts)


def test_every_factor_divides_what_it_folds(network):
    for target in (5_000, 700):
        for shape in network:
            folding = cheapest(network, target).folding[shape.name]
            assert shape.out_channels % folding.pe == 0
            size = shape.columns if shape.kind == MVAU else shape.channels
            assert size % folding.simd == 0


def test_a_window_has_the_lanes_of_its_pool(network):
    folding = cheapest(network, 700).finn(network)
    assert folding["b_win"] == {"SIMD": folding["b"]["PE"], "parallel_window": 0}


def test_what_is_solved_is_what_the_generator_will_build(network):
    found = cheapest(network, 3_000)
    given = {name: Folding(f.pe, f.simd, f.parallel_window) for name, f in found.folding.items()}
    assert searched(network, given) == dict(found.folding)


def test_no_cheaper_folding_exists_for_a_small_network():
    layers = dense("d", 12, 6)
    target = 20
    possible = [
        evaluate(layers, {"d": Folding(pe, simd)})
        for pe, simd in itertools.product((1, 2, 3, 6), (1, 2, 3, 4, 6, 12))
    ]
    good = [one for one in possible if one.cycles_per_image <= target]
    # The solver's price: logic, a tenth of the flip-flops, and 400 a block RAM.
    price = min(r.lut + 0.1 * r.ff + 400 * r.bram for r in (one.resources for one in good))
    found = cheapest(layers, target).resources
    assert found.lut + 0.1 * found.ff + 400 * found.bram == pytest.approx(price)


def test_nothing_is_faster_than_an_input_a_cycle(network):
    with pytest.raises(InputError, match="No folding takes 10 cycles"):
        cheapest(network, 10)


def test_what_does_not_fit_names_the_largest_layer(network):
    with pytest.raises(CheckFailedError, match="The largest layer is"):
        cheapest(network, 300, Resources(lut=1_500, ff=9_999, bram=9, dsp=0))


def test_the_fastest_that_fits_gets_faster_with_the_device(network):
    whole = budget(open_target("ecp5-25f").capacity)
    half = Resources(whole.lut / 6, whole.ff / 6, whole.bram / 6, 0)
    slow, fast = fastest(network, half), fastest(network, whole)
    assert fits(slow.resources, half)
    assert fits(fast.resources, whole)
    assert fast.cycles_per_image < slow.cycles_per_image


def test_block_rams_of_a_memory():
    assert cost.block_rams(36, 512) == 1
    assert cost.block_rams(64, 2048) == 8
    assert cost.block_rams(1, 16_385) == 2


def test_the_cost_model_is_as_near_to_synthesis_as_its_record_says():
    errors = []
    for shape, folding, cells in cost.measured():
        found = cost.layer_cost(shape, folding)
        errors.append(abs(found.lut - cells.lut) / max(cells.lut, 30))
    # A fit to these very layers: it is to rank foldings, not to replace synthesis.
    assert math.fsum(errors) / len(errors) < 0.25


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "ecp5-99f"},
        {"target": "pynq-z1"},
        {"target_cycles": 100},
        {"fill": 0.5},
        {"target": "ecp5-85f", "target_cycles": 0},
        {"target": "ecp5-85f", "fill": 1.5},
        {"target": "ecp5-85f", "fill": 0.5, "target_cycles": 100},
    ],
)
def test_settings_refuse_what_cannot_be(wrong):
    with pytest.raises(InputError):
        CompileSettings(**wrong)


def test_in_turn_takes_two_cycles_a_step_and_one():
    shape = conv("a", 6, 2, 8)[-1]
    assert cycles(shape, Folding(in_turn=True)) == 5 * cycles(shape, Folding())


def wide(name, columns, rows):
    """A matrix of 4-bit weights: two rows share a multiplier."""
    return LayerShape(name=name, kind=MVAU, columns=columns, channels=columns, out_channels=rows,
                      vectors=16, input_bits=4, weight_bits=4, output_bits=16)  # fmt: skip


@pytest.mark.parametrize("spare", [0, 10, 24, 40, 1000])
def test_multipliers_go_where_they_save_the_most_logic(spare):
    layers = [wide("a", 64, 32), wide("b", 32, 16), wide("c", 48, 8), *dense("d", 8, 4)]
    within = Resources(1e9, 1e9, 1e9, spare)
    found = cheapest(layers, 2_000, within)
    assert found.resources.dsp <= spare
    assert not found.folding["d"].dsp  # products of 2 bits are look-up tables
    choices = itertools.product((False, True), repeat=3)
    cells = []
    for choice in choices:
        folding = dict(found.folding)
        for name, dsp in zip("abc", choice, strict=True):
            folding[name] = replace(folding[name], dsp=dsp)
        other = evaluate(layers, folding)
        if other.resources.dsp <= spare:
            cells.append(other.resources.lut)
    assert found.resources.lut == pytest.approx(min(cells), rel=1e-9)  # sums in another order


def test_what_is_not_asked_for_takes_no_multipliers():
    settings = {"fill": None, "target": "ecp5-85f", "target_cycles": 9, "target_fps": None}
    none, auto = (
        Request.of(settings | {"multipliers": kind}).within.dsp for kind in ("none", "auto")
    )
    assert (none, auto) == (0, open_target("ecp5-85f").capacity.dsp)
    with pytest.raises(InputError, match="unknown multipliers 'all'"):
        CompileSettings(multipliers="all")


@pytest.mark.parametrize(
    ("weight", "act", "pe", "expected"),
    [(4, 4, 4, 16), (4, 4, 3, 24), (8, 8, 4, 32), (2, 4, 4, 0), (2, 2, 4, 0), (3, 8, 2, 8)],
)
def test_two_rows_share_a_multiplier_where_both_fit(weight, act, pe, expected):
    shape = LayerShape(name="m", kind=MVAU, weight_bits=weight, input_bits=act)
    assert cost.multipliers(shape, Folding(pe=pe, simd=8)) == expected
