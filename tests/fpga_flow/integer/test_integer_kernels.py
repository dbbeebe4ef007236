"""Each kernel against plain int64 arithmetic, at the limits of its number format."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_layers import common, conv, execute, extremes, source, threshold

from divqat_brevitas.errors import InputError
from fpga_flow.integer import convolution, kernels
from fpga_flow.lowering import reference
from fpga_flow.lowering.inputs import FloatStep, InputQuant
from fpga_flow.lowering.ir import Add, Concat, MatMul, MaxPool, Pad, SumPool
from fpga_flow.lowering.quantizers import Quantizer


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR"])
@pytest.mark.parametrize(
    ("bits", "signed", "bipolar", "dtype"),
    [
        (8, False, False, torch.uint8),
        (4, True, False, torch.int8),
        (10, False, False, torch.float32),
        (1, True, True, torch.int8),
    ],
)
def test_codes_of_images_are_the_definitions(
    rounding: str, bits: int, signed: bool, bipolar: bool, dtype: torch.dtype
) -> None:
    scale = np.float32(1 / 64 if bits > 1 else 1)  # so that ties occur
    quantizer = Quantizer(np.asarray(scale), bits, signed, False, rounding, bipolar)
    step = FloatStep("Sub", (2, 3, 3), np.full((2, 1, 1), 0.25, np.float32))
    images = (np.random.default_rng(0).integers(0, 257, (40, 2, 3, 3)) / 256).astype(np.float32)
    images.setflags(write=False)
    shape = (2, 3, 3)
    entry = InputQuant(
        **common(shape, quantizer.low, quantizer.high), quantizer=quantizer, preamble=(step,)
    )
    codes = kernels.compile_input(entry)(images)
    assert codes.dtype == dtype
    assert np.array_equal(codes.to(torch.int64).numpy(), entry.codes(images))
    plain = InputQuant(
        **common(shape, quantizer.low, quantizer.high), quantizer=quantizer, preamble=()
    )
    found = kernels.compile_input(plain)(images)
    assert np.array_equal(found.to(torch.int64).numpy(), plain.codes(images))


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**16),
    st.tuples(*[st.integers(1, 2)] * 2),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.tuples(*[st.integers(1, 2)] * 2),
    st.sampled_from([1, 2, 6]),
)
def test_convolutions(seed: int, strides: Any, pads: Any, dilations: Any, groups: int) -> None:
    rng = np.random.default_rng(seed)
    before = source((6, 7, 6))
    layer = conv(rng, before.shape, strides=strides, pads=pads, dilations=dilations, groups=groups)
    x = extremes(before, 3, seed)
    expected = reference.run(layer, [x])
    for kernel in (
        convolution.compile_conv(layer, before, batch=3),
        convolution.placed_conv(layer, torch.float32),
        convolution.placed_conv(layer, torch.float64),
    ):
        assert np.array_equal(execute(kernel, x), expected)


def test_sums_beyond_float32_are_exact() -> None:
    # 2**20 times 127: float32 alone would round
    before = source((6, 7, 6), -(2**20), 2**20 - 1)
    layer = conv(np.random.default_rng(0), before.shape, limit=128)
    x = extremes(before, 3)
    expected = reference.run(layer, [x])
    assert np.abs(expected).max() > 2**24
    assert np.array_equal(execute(convolution.compile_conv(layer, before, 3), x), expected)
    assert not np.array_equal(
        execute(convolution.direct_conv(convolution.normal_form(layer, before), torch.float32), x),
        expected,
    )
    dense = MatMul(**common((6,)), weight=layer.weight.reshape(6, -1).T, weight_bits=8)
    flat = source((36,), -(2**20), 2**20 - 1)
    x = extremes(flat, 5)
    kernel = kernels.compile_layer(dense, [flat], 5)
    assert np.array_equal(execute(kernel, x), reference.run(dense, [x]))


def test_sums_beyond_float64_are_refused() -> None:
    dense = MatMul(**common((1,)), weight=np.full((36, 1), 127), weight_bits=8)
    with pytest.raises(InputError, match=r"MatMul 'layer' can sum up to .* 2\*\*53"):
        kernels.compile_layer(dense, [source((36,), 0, 2**50)], 1)


def test_an_inexact_convolution_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source((6, 7, 6))
    layer = conv(np.random.default_rng(0), before.shape)
    x = extremes(before, 3)
    expected = reference.run(layer, [x])
    true_conv2d = torch.nn.functional.conv2d

    def winograd_like(*args: Any, **kwargs: Any) -> torch.Tensor:
        return true_conv2d(*args, **kwargs) * (1 + 2**-8)

    monkeypatch.setattr(torch.nn.functional, "conv2d", winograd_like)
    kernel = convolution.compile_conv(layer, before, batch=3)
    assert np.array_equal(execute(kernel, x), expected)
    assert not np.array_equal(
        execute(convolution.direct_conv(convolution.normal_form(layer, before), torch.float32), x),
        expected,
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.integers(0, 17), st.sampled_from([9, 300]), st.booleans())
def test_thresholds(seed: int, count: int, reach: int, spatial: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (5, 4, 3) if spatial else (5,)
    before = source(shape, rng.integers(-reach, 0, 5), rng.integers(0, reach, 5))
    layer = threshold(rng, before, count, step=2 if count == 1 else 1)
    x = extremes(before, 9, seed)
    expected = reference.run(layer, [x])
    assert np.array_equal(execute(kernels.compile_threshold(layer, before), x), expected)


@pytest.mark.parametrize("shape", [(5, 4, 3), (5,)])
def test_thresholds_over_a_large_range_are_searched(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    before = source(shape, -(2**40), 2**40)
    layer = threshold(rng, before, 15)
    near = rng.choice(layer.thresholds.ravel(), (50, *shape)) + rng.integers(-1, 2, (50, *shape))
    x = np.clip(np.concatenate([near, -near]), -(2**40), 2**40)
    expected = reference.run(layer, [x])
    assert len(np.unique(expected)) > 5
    assert np.array_equal(execute(kernels.compile_threshold(layer, before), x), expected)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 1, 1)])
def test_max_pool(negative: bool, pads: Any) -> None:
    before = source((5, 6, 6))
    signs = np.array([1, -1, 1, -1, 1]) if negative else np.ones(5, dtype=np.int64)
    size = 1 + (6 + pads[0] + pads[2] - 2) // 2, 6 + pads[1] + pads[3] - 1
    layer = MaxPool(
        **common((5, *size)),
        signs=signs,
        kernel=(2, 2),
        strides=(2, 1),
        pads=pads,
        dilations=(1, 1),
    )
    x = extremes(before, 4)
    assert np.array_equal(
        execute(kernels.compile_layer(layer, [before], 4), x), reference.run(layer, [x])
    )


def test_sum_pool_beyond_float32() -> None:
    before = source((5, 6, 6), 0, 2**23 - 1)
    layer = SumPool(
        **common((5, 5, 5), 0, 12 * 2**23),
        kernel=(2, 2),
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        factors=np.arange(25).reshape(5, 5) % 3 + 1,
    )
    x = extremes(before, 4)
    assert np.array_equal(
        execute(kernels.compile_layer(layer, [before], 4), x), reference.run(layer, [x])
    )


@pytest.mark.parametrize("high", [15, 127, 255, 2**20, 2**25])
def test_padding_and_branches_hold_their_integers(high: int) -> None:
    before = source((3, 4, 5), 0, high)
    pad = Pad(**common((3, 7, 5), -1, high), pads=(1, 0, 2, 0), fill=-1)
    shifts = np.array([0, 1, 3, 0, 0, 2])
    concat = Concat(**common((6, 4, 5), 0, high << 3), shifts=shifts)
    a, b = extremes(before, 4), extremes(before, 4, seed=1)
    kernel = kernels.compile_layer(pad, [before], 4)
    assert np.array_equal(execute(kernel, a), reference.run(pad, [a]))
    kernel = kernels.compile_layer(concat, [before, before], 4)
    assert np.array_equal(execute(kernel, a, b), reference.run(concat, [a, b]))


@pytest.mark.parametrize("reach", [7, 2**30])
def test_add_with_shifts(reach: int) -> None:
    before = source((5, 3, 3), -reach, reach)
    shifts = np.array([[0, 1, 0, 3, 0], [0, 0, 2, 0, 1]])
    layer = Add(**common((5, 3, 3)), shifts=shifts)
    a, b = extremes(before, 4), extremes(before, 4, seed=1)
    kernel = kernels.compile_layer(layer, [before, before], 4)
    assert np.array_equal(execute(kernel, a, b), reference.run(layer, [a, b]))
