"""The definition of ties, against exact rational arithmetic."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

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
