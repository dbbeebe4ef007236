"""Ties: their definition in exact rational arithmetic, and inputs that sit on them."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from equivalence import assert_equivalent
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qonnx_graphs import Graph

from fpga_flow.lowering.ir import Threshold
from fpga_flow.lowering.quantizers import Quantizer
from fpga_flow.lowering.thresholds import Folded, fold

LOW, HIGH = -60, 45


def quantizer(
    bits: int = 3, signed: bool = True, narrow: bool = False, rounding: str = "ROUND"
) -> Quantizer:
    one = np.ones((), dtype=np.float32)
    return Quantizer(one, bits, signed, narrow, rounding, bits == 1 and signed)


def folded(
    q: Quantizer,
    gain: float,
    offset: float,
    clip: tuple[float, float] = (-np.inf, np.inf),
    low: int = LOW,
    high: int = HIGH,
) -> Folded:
    floats = (np.array([v]) for v in (gain, offset))
    ends = (np.array([v]) for v in (low, high))
    return fold(q, *floats, *ends, *(np.array([v]) for v in clip))


def codes(q: Quantizer, result: Folded, n: NDArray[np.int64]) -> NDArray[np.int64]:
    passed = result.signs[0] * n[:, None] >= result.integers[0]
    return q.low + q.step * passed.sum(axis=1)


def exact(q: Quantizer, value: Fraction) -> int:
    """The Quant operator in rational arithmetic; Python's round is half to even."""
    if q.bipolar:
        return 1 if value >= 0 else -1
    rounding = {"ROUND": round, "FLOOR": floor, "CEIL": ceil}[q.rounding]
    return max(q.low, min(q.high, rounding(value)))


dyadic = st.integers(-64, 64).map(lambda i: i / 16)  # exact in float64


@given(
    st.sampled_from([1, 2, 3, 5]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["ROUND", "FLOOR", "CEIL"]),
    dyadic,
    dyadic,
    st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (-1.5, 2.5), (1.25, 1.5)]),
)
# A dead channel whose constant lies below the lower clip.
@example(1, False, False, "ROUND", 0.0, 0.0, (1.25, 1.5))
def test_agrees_with_exact_arithmetic_on_every_integer(
    bits: int,
    signed: bool,
    narrow: bool,
    rounding: str,
    gain: float,
    offset: float,
    clip: tuple[float, float],
) -> None:
    q = quantizer(bits, signed, narrow, rounding)
    n = np.arange(LOW, HIGH + 1)
    values = [np.clip(gain * int(i) + offset, *clip) for i in n]
    expected = [exact(q, Fraction(float(v))) for v in values]
    result = folded(q, gain, offset, clip)
    assert np.array_equal(codes(q, result, n), expected)
    first, last = sorted((int(result.signs[0]) * LOW, int(result.signs[0]) * HIGH))
    assert (np.diff(result.integers) >= 0).all()
    assert ((result.integers >= first) & (result.integers <= last + 1)).all()


@pytest.mark.parametrize(
    ("gain", "offset"), [(0.1, 0.0), (0.1, 0.3), (0.7, -0.2), (-0.1, 0.0), (0.1 / 0.3, 1 / 6)]
)
def test_decimal_parameters_tie_as_written(gain: float, offset: float) -> None:
    # As rationals with small denominators these tie; in binary they miss by an ulp.
    q = quantizer(4)
    a, b = (Fraction(v).limit_denominator(100) for v in (gain, offset))
    n = np.arange(LOW, HIGH + 1)
    values = [a * int(i) + b for i in n]
    assert any(v % 1 == Fraction(1, 2) for v in values)
    assert np.array_equal(codes(q, folded(q, gain, offset), n), [exact(q, v) for v in values])


def test_a_billionth_decides_what_is_a_tie() -> None:
    q = quantizer(1, signed=False)  # one level: 1/2, which rounds down to the even 0
    assert folded(q, 1.0, 0.5).integers.tolist() == [[1]]
    assert folded(q, 1.0, 0.5 + 1e-10).integers.tolist() == [[1]]
    assert folded(q, 1.0, 0.5 + 1e-8).integers.tolist() == [[0]]


def test_constant_channels_tie_by_the_same_rule() -> None:
    q = quantizer(4)
    n = np.array([LOW, 0, HIGH])
    for offset, code in ((0.5, 0), (1.5, 2), (2.5 + 1e-12, 2), (-0.5, 0), (99.0, 7), (-99.0, -8)):
        assert codes(q, folded(q, 0.0, offset), n).tolist() == [code] * 3


def test_a_nearly_dead_channel_does_not_overflow() -> None:
    q = quantizer(4)
    result = folded(q, 1e-30, 3.4)
    assert codes(q, result, np.array([LOW, HIGH])).tolist() == [3, 3]
    assert not result.live.any()


def test_a_threshold_is_live_where_the_accumulator_reaches_it() -> None:
    q = quantizer(3)  # levels -3.5 ... 2.5
    assert folded(q, 1.0, 0.0, low=-1, high=1).live.tolist() == [
        [False, False, True, True, True, True, False]
    ]
    relu = folded(q, 1.0, 0.0, clip=(0.0, np.inf))
    assert relu.live.tolist() == [[False] * 4 + [True] * 3]


@given(st.lists(st.floats(-4, 4, width=32), min_size=1), st.integers(1, 8), st.booleans())
def test_input_codes_are_the_operators_own(values: list[float], bits: int, signed: bool) -> None:
    from qonnx.custom_op.general.intquant import int_quant

    scale = np.float32(0.1)
    x = np.array(values, dtype=np.float32)
    bipolar = bits == 1 and signed
    q = Quantizer(np.asarray(scale), bits, signed, False, "ROUND", bipolar)
    theirs = int_quant(x, scale, np.float32(0), np.float32(bits), signed, False, "ROUND") / scale
    assert np.array_equal(q.codes(x), np.rint(theirs))


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
