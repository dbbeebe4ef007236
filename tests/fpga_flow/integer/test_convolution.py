"""Which convolutions a library gets, in which layouts, and that the others are right too."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_layers import common, execute, extremes, source

from fpga_flow.integer.convolution import compile_conv, normal_form, placed_conv
from fpga_flow.integer.int8 import compile_int8
from fpga_flow.integer.kernels import compile_layer, tabulated
from fpga_flow.integer.layout import batch_sizes, channels_last, in_rows, parts
from fpga_flow.integer.trial import agrees
from fpga_flow.lowering import Layer, reference
from fpga_flow.lowering.ir import Conv, MaxPool, SumPool, Threshold


def made(
    before: Layer,
    kernel: tuple[int, int],
    out: int = 4,
    limit: int = 8,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Conv:
    """A convolution of any geometry with random weights and the range of its sums."""
    rng = np.random.default_rng(0)
    size = [
        (n + first + last - d * (k - 1) - 1) // s + 1
        for n, first, last, d, k, s in zip(
            before.shape[1:], pads[:2], pads[2:], dilations, kernel, strides, strict=True
        )
    ]
    weight = rng.integers(-limit, limit, (out, before.shape[0] // groups, *kernel))
    reach = int(np.maximum(-before.low, before.high).max())
    most = np.abs(weight).sum(axis=(1, 2, 3)) * reach
    return Conv(
        **common((out, *size), -most, most),
        weight=weight,
        weight_bits=4,
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
    )


lengths = st.integers(1, 4)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_normal_form_computes_the_same(data: st.DataObject) -> None:
    pair = st.tuples(lengths, lengths)
    kernel, strides, dilations = (data.draw(pair) for _ in range(3))
    pads = data.draw(st.tuples(*[st.integers(0, 3)] * 4))
    output = data.draw(st.tuples(st.sampled_from([1, 1, 2, 5]), st.sampled_from([1, 1, 2, 5])))
    groups, each = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    size = [
        d * (k - 1) + 1 + s * (o - 1) + data.draw(st.integers(0, s - 1)) - first - last
        for d, k, s, o, first, last in zip(
            dilations, kernel, strides, output, pads[:2], pads[2:], strict=True
        )
    ]
    if min(size) < 1:
        return
    before = source((groups * each, *size))
    layer = made(before, kernel, 2 * groups, 8, strides, pads, dilations, groups)
    assert layer.shape[1:] == output
    x = extremes(before, 3)
    expected = reference.run(layer, [x])
    windows = normal_form(layer, before)
    read = x[:, :, windows.part[0], windows.part[1]]
    assert np.array_equal(reference.run(windows.layer, [read]), expected)
    for axis in (0, 1):
        reads_input = windows.layer.pads[axis] == windows.layer.pads[axis + 2] == 0
        if output[axis] == 1 and reads_input:
            # No stride, no dilation, no column that is not read: what libraries stumble over.
            assert windows.layer.strides[axis] == windows.layer.dilations[axis] == 1
            assert read.shape[axis + 2] == windows.layer.weight.shape[axis + 2]
    assert np.array_equal(execute(placed_conv(layer, torch.float32), x), expected)
    assert np.array_equal(execute(compile_conv(layer, before, 2), x), expected)


def broken(*_: Any, **__: Any) -> Any:
    raise AssertionError("a library's convolution was called")


# Shapes and strides in which oneDNN's grouped int8 convolution and PyTorch's convolution of one
# channel were wrong, on processors with AVX-512.
KNOWN = {
    "grouped int8": ((6, 5, 4), (4, 4), {"strides": (1, 3), "pads": (0, 1, 0, 1), "groups": 6}),
    "grouped, narrow": ((6, 5, 2), (3, 3), {"strides": (1, 2), "pads": (0, 1, 0, 1), "groups": 6}),
    "one channel": ((1, 6, 4), (2, 3), {"strides": (1, 2)}),
    "one channel, wide": ((1, 6, 6), (2, 3), {"strides": (1, 2)}),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("codes", [(0, 15), (-8, 7)])
def test_known_faults_of_libraries_are_never_reached(
    name: str, codes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, kernel, geometry = KNOWN[name]
    before = source(shape, *codes)
    layer = made(before, kernel, 12, **geometry)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.nn.functional, "conv2d", broken)
    monkeypatch.setattr(torch.ops.onednn, "qconv_pointwise", broken, raising=False)
    x = extremes(before, 8)
    expected = reference.run(layer, [x])
    for batch in (1, 8):
        kernel_of_bytes = compile_int8(layer, None, before, batch)
        chosen = kernel_of_bytes or compile_conv(layer, before, batch)
        assert np.array_equal(execute(chosen, x), expected)


def test_a_strided_kernel_of_one_pixel_is_plain_without_its_stride() -> None:
    before = source((8, 7, 6))
    windows = normal_form(made(before, (1, 1), strides=(2, 2)), before)
    assert windows.is_plain
    assert windows.layer.strides == (1, 1)
    assert windows.part == (slice(0, 7, 2), slice(0, 5, 2))


@pytest.mark.parametrize("shape", [(3, 4, 5, 1), (3, 1, 5, 4), (1, 4, 1, 1), (3, 1, 1, 1)])
def test_layouts_are_exact_to_the_last_stride(shape: tuple[int, ...]) -> None:
    n, c, h, w = shape
    values = torch.arange(n * c * h * w, dtype=torch.float32).reshape(shape)
    strays = torch.full((n, c, h, 3 * w), -1.0)
    strays[..., ::3] = values
    for x in (values, strays[..., ::3], values.transpose(1, 3).contiguous().transpose(1, 3)):
        assert channels_last(x).stride() == (c * h * w, 1, c * w, c)
        assert in_rows(x).stride() == (c * h * w, h * w, w, 1)
        assert torch.equal(channels_last(x), values)
        assert torch.equal(in_rows(x), values)
    assert in_rows(values.reshape(-1, 1).expand(-1, 2)[:, :1]).stride() == (1, 1)


@given(st.integers(0, 5000), st.integers(0, 10))
def test_any_number_of_images_is_split_into_sizes_that_stood_trial(count: int, power: int) -> None:
    sizes = [part.stop - part.start for part in parts(count, 2**power)]
    assert sum(sizes) == count
    assert set(sizes) <= set(batch_sizes(2**power))


@pytest.mark.parametrize("wrong_at", [1, 2, 4, 8])
def test_a_kernel_that_is_wrong_at_one_size_fails_its_trial(wrong_at: int) -> None:
    before = source((4, 6, 6))
    layer = made(before, (3, 3))
    right = placed_conv(layer, torch.float32)

    def kernel(x: torch.Tensor) -> torch.Tensor:
        result = right(x)
        return result + 1 if len(x) == wrong_at else result

    assert agrees(right, [layer], before, torch.int8, 8)
    assert not agrees(kernel, [layer], before, torch.int8, 8)


def test_a_kernel_that_mixes_the_images_of_a_batch_fails_its_trial() -> None:
    before = source((4, 6, 6))
    layer = made(before, (3, 3))
    right = placed_conv(layer, torch.float32)

    def kernel(x: torch.Tensor) -> torch.Tensor:
        result = right(x)
        if len(x) > 2:
            result[1] = result[2]
        return result

    assert not agrees(kernel, [layer], before, torch.int8, 8)


def test_a_kernel_that_leaves_memory_as_it_was_fails_its_trial() -> None:
    before = source((4, 6, 6))
    layer = made(before, (3, 3), out=1)
    right = placed_conv(layer, torch.float32)
    calls = []

    def kernel(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return right(x) if len(calls) % 2 else torch.empty((len(x), *layer.shape))

    assert not agrees(kernel, [layer], before, torch.int8, 8)


@pytest.mark.parametrize("shape", [(3, 5, 1), (1, 5, 4), (5,)])
def test_tables_do_not_wrap(shape: tuple[int, ...]) -> None:
    """Signed bytes read by thresholds that are no line: the difference of two bytes has 9 bits."""
    before = source(shape, -128, 127)
    thresholds = np.tile([-127, -126, 0, 126, 127], (shape[0], 1))
    signs = np.where(np.arange(shape[0]) % 2, -1, 1)
    layer = Threshold(**common(shape, 0, 5), thresholds=thresholds, signs=signs, base=0, step=1)
    x = extremes(before, 40)
    kernel = tabulated(layer, before)
    assert kernel is not None
    for dtype in (torch.int8, torch.float32):
        found = kernel(channels_last(torch.from_numpy(x).to(dtype)))
        assert np.array_equal(found.to(torch.int64).numpy(), reference.run(layer, [x]))


def test_tables_of_sums_beyond_int32() -> None:
    before = source((2,), -(2**40), 2**40)
    thresholds = np.array([[2**36, 2**36 + 1, 2**36 + 9], [-5, 2, 3]])
    layer = Threshold(
        **common((2,), 0, 3), thresholds=thresholds, signs=np.array([1, -1]), base=0, step=1
    )
    x = np.concatenate([thresholds.T * [1, -1] + d for d in (-1, 0, 1)] + [extremes(before, 9)])
    kernel = tabulated(layer, before)
    assert kernel is not None
    found = kernel(torch.from_numpy(x).to(torch.float64))
    assert np.array_equal(found.to(torch.int64).numpy(), reference.run(layer, [x]))


@pytest.mark.parametrize("strides", [(1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("shape", [(1, 7, 2), (5, 6, 3), (2, 2, 2)])
def test_pools_of_narrow_maps(shape: tuple[int, int, int], strides: tuple[int, int]) -> None:
    before = source(shape, -128, 127)
    size = tuple((n - 2) // s + 1 for n, s in zip(shape[1:], strides, strict=True))
    x = extremes(before, 4)
    window: dict[str, Any] = {"kernel": (2, 2), "strides": strides, "pads": (0, 0, 0, 0)}
    signs = np.where(np.arange(shape[0]) % 2, 1, -1)
    most = MaxPool(**common((shape[0], *size), -128, 128), signs=signs, dilations=(1, 1), **window)
    factors = np.ones(size, dtype=np.int64)
    total = SumPool(**common((shape[0], *size), -512, 508), factors=factors, **window)
    for layer in (most, total):
        kernel = compile_layer(layer, [before], 4)
        for dtype in (torch.int8, torch.float32):
            found = kernel(channels_last(torch.from_numpy(x).to(dtype)))
            assert np.array_equal(found.to(torch.int64).numpy(), reference.run(layer, [x]))


def test_codes_beyond_float32_travel_in_float64() -> None:
    before = source((2, 4, 4), 0, 2**24 + 1)
    layer = made(before, (2, 2), limit=2)
    x = extremes(before, 3)
    kernel = compile_conv(layer, before, 2)
    assert kernel.kind.startswith("float64")
    assert np.array_equal(execute(kernel, x), reference.run(layer, [x]))


def test_the_range_of_a_source_is_looked_at() -> None:
    before = source((4, 6, 6))
    layer = made(before, (3, 3))
    narrow = replace(before, low=np.zeros(4, dtype=np.int64))
    assert agrees(placed_conv(layer, torch.float32), [layer], narrow, torch.uint8, 2)
