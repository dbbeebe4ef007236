"""Kernels on bytes against plain int64 arithmetic, at the limits of bytes."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_layers import common, conv, execute, extremes, quantizer, source, threshold, with_range

from fpga_flow.integer import int8
from fpga_flow.integer.int8 import compile_int8, saturates
from fpga_flow.lowering import Layer, reference
from fpga_flow.lowering.ir import MatMul

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN"
)


def dense(rng: np.random.Generator, before: Layer, out: int, limit: int = 8) -> MatMul:
    weight = rng.integers(-limit, limit, (before.shape[0], out))
    return with_range(MatMul(**common((out,)), weight=weight, weight_bits=8), before)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**16),
    st.integers(1, 2),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.sampled_from([(0, 15), (0, 255), (-8, 7), (-128, 127)]),
    st.sampled_from([0, -8]),
)
def test_plain_convolutions(seed: int, stride: int, pads: Any, codes: Any, base: int) -> None:
    rng = np.random.default_rng(seed)
    before = source((6, 7, 6), *codes)
    layer = with_range(conv(rng, before.shape, strides=(stride, stride), pads=pads), before)
    after = quantizer(rng, layer, 15, base)
    x = extremes(before, 3, seed)
    sums = compile_int8(layer, None, before, batch=3)
    fused = compile_int8(layer, after, before, batch=3)
    assert sums is not None
    assert fused is not None
    expected = reference.run(layer, [x])
    assert np.array_equal(execute(sums, x), expected)
    assert np.array_equal(execute(fused, x), reference.run(after, [expected]))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("codes", [(0, 255), (-128, 127)])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 2, 1, 0)])
def test_few_channels_are_packed_into_pixels(
    channels: int, codes: Any, pads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "UNROLLED", 0)
    rng = np.random.default_rng(0)
    before = source((channels, 7, 6), *codes)
    layer = with_range(conv(rng, before.shape, pads=pads), before)
    kernel = compile_int8(layer, None, before, batch=3)
    assert kernel is not None
    x = extremes(before, 3)
    assert np.array_equal(execute(kernel, x), reference.run(layer, [x]))


@pytest.mark.parametrize(
    "rare", [{"groups": 2}, {"groups": 6}, {"dilations": (1, 2)}, {"strides": (1, 2)}]
)
def test_convolutions_that_are_not_plain_are_left_to_floating_point(rare: Any) -> None:
    rng = np.random.default_rng(0)
    before = source((6, 7, 6), 0, 15)
    layer = with_range(conv(rng, before.shape, **rare), before)
    assert compile_int8(layer, None, before, batch=3) is None


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 2**16),
    st.integers(1, 3),
    st.tuples(*[st.integers(1, 2)] * 2),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.tuples(*[st.integers(1, 2)] * 2),
    st.sampled_from([0, -8]),
)
def test_tiny_images_are_one_product(
    seed: int, channels: int, strides: Any, pads: Any, dilations: Any, base: int
) -> None:
    rng = np.random.default_rng(seed)
    before = source((channels, 6, 5), 0, 255)
    layer = conv(rng, before.shape, strides=strides, pads=pads, dilations=dilations)
    layer = with_range(layer, before)
    after = quantizer(rng, layer, 15, base)
    x = extremes(before, 3, seed)
    sums = compile_int8(layer, None, before, batch=3)
    fused = compile_int8(layer, after, before, batch=3)
    assert sums is not None
    assert fused is not None
    assert (sums.kind, fused.kind) == ("unrolled int8", "unrolled int8 with layer")
    expected = reference.run(layer, [x])
    assert np.array_equal(execute(sums, x), expected)
    assert np.array_equal(execute(fused, x), reference.run(after, [expected]))


@pytest.mark.parametrize("codes", [(0, 255), (-128, 127)])
def test_the_largest_bytes(codes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    before = source((16, 8, 8), *codes)
    layer = conv(rng, before.shape)
    layer = with_range(replace(layer, weight=rng.choice([-128, 127], layer.weight.shape)), before)
    after = quantizer(rng, layer, 3)
    if saturates():
        assert compile_int8(layer, after, before, batch=4) is None
        return
    kernel = compile_int8(layer, after, before, batch=4)
    assert kernel is not None
    x = extremes(before, 4)
    assert np.array_equal(execute(kernel, x), reference.run(after, [reference.run(layer, [x])]))


@pytest.mark.parametrize("fused", [False, True])
def test_products(fused: bool) -> None:
    rng = np.random.default_rng(0)
    before = source((36,), 0, 255)
    layer = dense(rng, before, 5)
    after = quantizer(rng, layer, 15)
    kernel = compile_int8(layer, after if fused else None, before, batch=7)
    assert kernel is not None
    assert kernel.kind == ("int8 with layer" if fused else "int8")
    x = extremes(before, 7)
    expected = reference.run(layer, [x])
    expected = reference.run(after, [expected]) if fused else expected
    assert np.array_equal(execute(kernel, x), expected)


def test_what_is_left_to_floating_point() -> None:
    rng = np.random.default_rng(0)
    before = source((6, 7, 6), 0, 255)
    layer = with_range(conv(rng, before.shape), before)
    assert compile_int8(layer, None, before, 2) is not None
    # operands that are no bytes
    assert compile_int8(layer, None, source((6, 7, 6), 0, 256), 2) is None
    wide = replace(layer, weight=layer.weight * 128)
    assert compile_int8(wide, None, before, 2) is None
    # products with a zero-point
    assert compile_int8(dense(rng, source((36,)), 5), None, source((36,)), 2) is None
    # sums that float32 rounds
    long = source((700,), 0, 255)
    assert (
        compile_int8(replace(dense(rng, long, 2), weight=np.full((700, 2), 127)), None, long, 2)
        is None
    )
    # sums that float32 rounds before the zero-point of signed codes is taken off
    signed, unsigned = source((600, 3, 3), -100, 1), source((600, 3, 3), 0, 100)
    many = conv(rng, (600, 3, 3), limit=1)
    many = replace(many, weight=np.full(many.weight.shape, 20))
    assert compile_int8(with_range(many, unsigned), None, unsigned, 2) is not None
    assert compile_int8(with_range(many, signed), None, signed, 2) is None
    # thresholds that are no line
    assert compile_int8(layer, threshold(rng, layer, 15), before, 2) is None


def test_where_pairs_saturate_only_small_products_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "saturates", lambda: True)
    rng = np.random.default_rng(0)
    large, small = source((6, 7, 6), 0, 255), source((6, 7, 6), 0, 15)
    layer = conv(rng, large.shape, limit=128)
    assert compile_int8(with_range(layer, large), None, large, 2) is None
    assert compile_int8(with_range(layer, small), None, small, 2) is not None


def test_an_inexact_kernel_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    true_conv = torch.ops.onednn.qconv_pointwise

    def saturating(*args: Any) -> torch.Tensor:
        return true_conv(*args).clamp(-100, 100)

    rng = np.random.default_rng(0)
    before = source((6, 7, 6), 0, 255)
    layer = with_range(conv(rng, before.shape), before)
    monkeypatch.setattr(torch.ops.onednn, "qconv_pointwise", saturating)
    assert compile_int8(layer, None, before, 2) is None


def test_a_pytorch_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any) -> torch.Tensor:
        raise RuntimeError("ATen not compiled with MKLDNN support")

    rng = np.random.default_rng(0)
    before = source((6, 7, 6), 0, 255)
    monkeypatch.setattr(torch.ops.onednn, "qconv_prepack", missing)
    assert compile_int8(with_range(conv(rng, before.shape), before), None, before, 2) is None


_OLDER = """
import numpy as np
from kernel_layers import conv, execute, extremes, source, with_range
from fpga_flow.lowering import reference
from fpga_flow.integer.int8 import compile_int8, saturates

for reach, limit in ((255, 128), (15, 8), (255, 8)):
    before = source((64, 7, 6), 0, reach)
    layer = with_range(conv(np.random.default_rng(0), before.shape, limit), before)
    kernel = compile_int8(layer, None, before, 3)
    x = extremes(before, 3)
    exact = kernel and np.array_equal(execute(kernel, x), reference.run(layer, [x]))
    print(reach, limit, saturates(), exact)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 instruction sets")
def test_exact_on_processors_that_saturate() -> None:
    # oneDNN can be told to use no newer instructions than an older processor has
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _OLDER],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )
    assert found.stdout.splitlines() == ["255 128 True None", "15 8 True True", "255 8 True True"]
