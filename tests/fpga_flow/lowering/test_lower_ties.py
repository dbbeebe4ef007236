"""Inputs that sit exactly on rounding ties."""

from fractions import Fraction

import numpy as np
import pytest
from equivalence import assert_equivalent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qonnx_graphs import Graph

from fpga_flow.lowering.ir import Threshold

SLOW = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.slow  # lowers large networks
@SLOW
@given(
    seed=st.integers(0, 2**16),
    bits=st.integers(2, 8),
    signed=st.booleans(),
    exponent=st.integers(-3, 2),
    rounding=st.sampled_from(["ROUND", "FLOOR", "CEIL"]),
)
def test_ties_of_power_of_two_scales(
    seed: int, bits: int, signed: bool, exponent: int, rounding: str
) -> None:
    # Every product and sum is exact in float32: QONNX itself decides ties exactly.
    g = Graph((6,), seed)
    image = g.quant("image", 1 / 16, 5, signed=False)
    x = g.node("MatMul", image, g.weight((6, 9), bits=3, scale=0.25))
    x = g.node("Add", x, g.constant(g.rng.integers(-8, 9, 9) / 64))
    x = g.node("Mul", x, g.constant(g.rng.choice([-1.0, 0.5, 2.0], 9)))
    x = g.quant(x, 2.0**exponent, bits, signed, False, rounding)
    x = g.node("MatMul", x, g.weight((9, 5), bits=4, scale=0.5))
    model = g.model(g.node("Add", x, g.constant(np.arange(5) / 1024)))
    # multiples of 1/32: half of them tie at the input quantizer
    batch = g.rng.integers(0, 33, (24, 6)).astype(np.float32) / 32
    assert_equivalent(model, batch, settled=False)


def test_the_inputs_above_do_sit_on_ties() -> None:
    g = Graph((6,))
    image = g.quant("image", 1 / 16, 5, signed=False)
    x = g.node("MatMul", image, g.weight((6, 9), bits=3, scale=0.25))
    x = g.quant(x, 0.5, 4)
    batch = g.rng.integers(0, 33, (200, 6)).astype(np.float32) / 32
    assert (batch * 16 % 1 == 0.5).any()
    network = assert_equivalent(g.model(g.linear(x, 9, 5)), batch, settled=False)
    accumulators = network.run(batch)["MatMul_0_out0"]
    # accumulator / 64 over scale 1/2: a tie is an odd multiple of 16
    ties = accumulators[accumulators % 32 == 16]
    assert len(ties) > 20
    threshold = network.layers[1]
    assert isinstance(threshold, Threshold)
    codes = network.run(batch)[threshold.output][accumulators % 32 == 16]
    expected = [round(Fraction(int(n), 32)) for n in ties]  # Python rounds half to even
    assert np.array_equal(codes, np.clip(expected, -8, 7))
