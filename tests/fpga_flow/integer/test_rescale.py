"""Thresholds as a multiply-add: right for every integer in reach, or refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_layers import Integers, common, execute, quantizer, source, threshold

from fpga_flow.integer import kernels
from fpga_flow.integer.rescale import Rescale, fit_rescale
from fpga_flow.lowering import reference
from fpga_flow.lowering.ir import Threshold


def every(low: Integers, high: Integers) -> Integers:
    """All integers of each channel's range, (N, C); shorter ranges repeat their end."""
    return np.minimum(low + np.arange(int((high - low).max()) + 1)[:, None], high)


def codes(rescale: Rescale, n: Integers, fused: bool) -> Integers:
    slope, offset = rescale.slope, rescale.offset
    if fused:
        exact = n.astype(np.float64) * slope.astype(np.float64) + offset.astype(np.float64)
        value = exact.astype(np.float32)
    else:
        value = n.astype(slope.dtype) * slope + offset
    return np.clip(np.rint(value), rescale.low, rescale.high).astype(np.int64)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**16),
    st.sampled_from([1, 3, 7, 15]),
    st.sampled_from([20, 300, 20_000]),
    st.sampled_from([0, -8]),
    st.sampled_from([0.3, 0.9, 1.5]),
)
def test_a_quantizers_thresholds_are_a_line(
    seed: int, count: int, reach: int, base: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    before = source((5,), rng.integers(-reach, 0, 5), rng.integers(0, reach, 5))
    layer = quantizer(rng, before, count, base, spread)
    n = every(before.low, before.high)
    rescale = fit_rescale(layer, before)
    assert rescale is not None
    for fused in (False, True):
        assert np.array_equal(codes(rescale, n, fused), reference.run(layer, [n]))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**16), st.integers(0, 5), st.sampled_from([9, 300]), st.sampled_from([1, 2]))
def test_any_thresholds_are_exact_or_refused(seed: int, count: int, reach: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    before = source((3,), rng.integers(-reach, 0, 3), rng.integers(0, reach, 3))
    layer = threshold(rng, before, count, step)
    n = every(before.low, before.high)
    rescale = fit_rescale(layer, before)
    if count < 2:
        assert rescale is not None
    if rescale is not None:
        for fused in (False, True):
            assert np.array_equal(codes(rescale, n, fused), reference.run(layer, [n]))


def line(thresholds: list[int], step: int = 1) -> Threshold:
    return Threshold(
        **common((1,), 0, step * len(thresholds)),
        thresholds=np.array([thresholds]),
        signs=np.ones(1, dtype=np.int64),
        base=0,
        step=step,
    )


def test_unequal_steps_are_refused_and_looked_up() -> None:
    before = source((1,), -100, 100)
    layer = line([-50, -49, 60])
    assert fit_rescale(layer, before) is None
    kernel = kernels.compile_threshold(layer, before)
    assert kernel.kind == "table"
    n = every(before.low, before.high)
    assert np.array_equal(execute(kernel, n), reference.run(layer, [n]))


def test_steps_of_two_codes_are_a_line_only_where_each_is_within_an_integer() -> None:
    before = source((1,), -100, 100)
    assert fit_rescale(line([3], step=2), before) is not None
    assert fit_rescale(line([3, 50], step=2), before) is None


@pytest.mark.parametrize("signs", [1, -1])
def test_a_channel_that_never_changes(signs: int) -> None:
    before = source((1,), 5, 9)
    sign = np.array([signs])
    always = np.sort(sign * before.low)[0] if signs > 0 else -9
    for thresholds in ([always, always], [10 if signs > 0 else -4] * 2):
        layer = replace(line([0, 0]), thresholds=np.array([thresholds]), signs=sign)
        rescale = fit_rescale(layer, before)
        assert rescale is not None
        n = every(before.low, before.high)
        assert np.array_equal(codes(rescale, n, True), reference.run(layer, [n]))


def test_fine_codes_of_wide_sums_need_float64() -> None:
    rng = np.random.default_rng(0)
    before = source((8,), -(2**21), 2**21)
    layer = quantizer(rng, before, 255)
    assert fit_rescale(layer, before) is None
    rescale = fit_rescale(layer, before, np.float64)
    assert rescale is not None
    near = (layer.signs * layer.thresholds.T)[:, None] + np.array([-1, 0, 1])[:, None]
    n = np.clip(near.reshape(-1, 8), before.low, before.high)
    expected = reference.run(layer, [n])
    assert np.array_equal(codes(rescale, n, False), expected)
    kernel = kernels.compile_threshold(layer, before)
    assert kernel.kind == "float64 multiply-add"
    assert np.array_equal(execute(kernel, n), expected)


def test_sums_beyond_float32_are_refused() -> None:
    assert fit_rescale(line([1]), source((1,), -(2**24), 0)) is None
    assert fit_rescale(line([1]), source((1,), -(2**24) + 1, 5)) is not None
    assert fit_rescale(line([1]), source((1,), -(2**53), 5), np.float64) is None
