"""Trunc behind average pools: shifts of integers, exact on every tie."""

import numpy as np
import pytest
from equivalence import assert_equivalent
from qonnx.core.modelwrapper import ModelWrapper
from qonnx_graphs import DOMAIN, Graph, images

from fpga_flow.lowering import LoweringError, lower
from fpga_flow.lowering.ir import Threshold

SHAPE = (3, 8, 8)
SCALE = 0.2


def trunc(g: Graph, x: str, *numbers: float, rounding: str = "FLOOR", **attrs: int) -> str:
    """``numbers``: scale, zero-point, input bits, then output scale and bits (or bits alone)."""
    constants = [g.constant(n) for n in numbers]
    return g.node("Trunc", x, *constants, domain=DOMAIN, rounding_mode=rounding, **attrs)


def pooled(g: Graph, signed: bool) -> str:
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4), 4, 30.0), SCALE, 4, signed)
    return g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])


@pytest.mark.slow  # lowers large networks
@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("shift", "bits"), [(2, 4), (1, 3), (4, 4), (0, 6)])
def test_the_sum_of_a_pool_is_shifted(rounding: str, signed: bool, shift: int, bits: int) -> None:
    g = Graph(SHAPE)
    numbers = SCALE / 4, 0, 6, SCALE / 4 * 2**shift, bits
    x = trunc(g, pooled(g, signed), *numbers, rounding=rounding, signed=int(signed), narrow=0)
    # Not settled: a quarter of the sums are ties, and every level decides them alike.
    network = assert_equivalent(g.classifier(x), images(SHAPE), settled=False)
    sums, codes = network.layers[2], network.layers[3]
    assert isinstance(codes, Threshold)
    n, c = (network.run(images(SHAPE))[layer.output] for layer in (sums, codes))
    rule = {"ROUND": np.rint, "FLOOR": np.floor, "CEIL": np.ceil}[rounding]
    least = -(2 ** (bits - 1)) if signed else 0
    assert np.array_equal(c, np.clip(rule(n / 2**shift), least, least + 2**bits - 1))


@pytest.mark.parametrize("signed", [False, True])
def test_narrow_codes(signed: bool) -> None:
    g = Graph(SHAPE)
    x = trunc(g, pooled(g, signed), SCALE / 4, 0, 6, SCALE, 3, signed=int(signed), narrow=1)
    assert_equivalent(g.classifier(x), images(SHAPE), settled=False)


@pytest.mark.parametrize("signed", [False, True])
def test_the_first_version_keeps_the_scale_and_clips_nothing(signed: bool) -> None:
    g = Graph(SHAPE)
    x = trunc(g, pooled(g, signed), SCALE / 4, 0, 6, 4, rounding="ROUND")
    model = g.classifier(x)
    for opset in model.model.opset_import:
        if opset.domain == DOMAIN:
            opset.version = 1
    network = assert_equivalent(ModelWrapper(model.model), images(SHAPE), settled=False)
    assert np.allclose(network.layers[3].scale, SCALE / 4)


@pytest.mark.parametrize(
    ("numbers", "rounding", "message"),
    [
        ((SCALE / 4, 1, 6, SCALE, 4), "FLOOR", "zero-point is not 0"),
        ((SCALE / 3, 0, 6, SCALE, 4), "FLOOR", "no integer times its scale.*TruncAvgPool2d"),
        ((SCALE / 4, 0, 6, SCALE, 4), "HALF_UP", "rounding mode HALF_UP"),
        ((SCALE / 4, 0, 6, SCALE, 12), "FLOOR", "leaves 12 bits"),
        ((SCALE / 4, 0, 6, SCALE, 2.5), "FLOOR", "bit width 2.5"),
    ],
)
def test_refusals(numbers: tuple[float, ...], rounding: str, message: str) -> None:
    g = Graph(SHAPE)
    x = trunc(g, pooled(g, True), *numbers, rounding=rounding, signed=1, narrow=0)
    with pytest.raises(LoweringError, match=f"Trunc.*{message}"):
        lower(g.classifier(x))
