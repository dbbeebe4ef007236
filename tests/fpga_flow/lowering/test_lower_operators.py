"""Every supported operator, against QONNX's own execution."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from equivalence import assert_equivalent
from qonnx_graphs import Graph, images

from fpga_flow.lowering import LoweringError, lower
from fpga_flow.lowering.ir import Add, Conv, MaxPool, Threshold

SHAPE = (3, 8, 8)


@pytest.mark.parametrize("bits", range(1, 9))
def test_weight_and_activation_bit_widths(bits: int) -> None:
    g = Graph(SHAPE, seed=bits)
    x = g.conv(g.image(), 3, 4, bits=bits, bias=True)
    x = g.batch_norm(x, 4, spread=50.0)
    x = g.bipolar(x, 0.5) if bits == 1 else g.quant(g.node("Relu", x), 4 / 2**bits, bits, False)
    network = assert_equivalent(g.classifier(x), images(SHAPE))
    conv, threshold = network.layer("Conv_0"), network.layers[1]
    assert isinstance(conv, Conv)
    assert conv.weight_bits == bits
    assert isinstance(threshold, Threshold)
    assert threshold.thresholds.shape == (4, 2**bits - 1)
    assert threshold.bits == bits


@pytest.mark.slow  # lowers large networks
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL"])
def test_activation_code_ranges(bits: int, narrow: bool, signed: bool, rounding: str) -> None:
    g = Graph(SHAPE, seed=bits)
    x = g.batch_norm(g.conv(g.image(), 3, 4), 4, spread=20.0)
    x = g.quant(x, 0.5 / 2**bits, bits, signed, narrow, rounding)
    network = assert_equivalent(g.classifier(x), images(SHAPE))
    codes = network.run(images(SHAPE))[network.layers[1].output]
    if bits == 1 and signed:  # QONNX executes this as bipolar
        assert set(np.unique(codes)) == {-1, 1}
    else:
        least = -(2 ** (bits - 1)) + narrow if signed else 0
        assert codes.min() == least
        assert codes.max() == least + 2**bits - 1 - narrow


@pytest.mark.slow  # lowers large networks
@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"strides": [2, 2]},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 1], "strides": [2, 1]},
        {"pads": [2, 0, 1, 1], "dilations": [2, 1]},
        {"groups": 2, "pads": [1, 1, 1, 1]},
        {"groups": 4, "pads": [1, 1, 1, 1], "bits": 8},
        {"groups": 4, "axis": None, "kernel": (1, 2)},
        {"auto_pad": "VALID", "bias": True},
    ],
)
def test_convolutions(attrs: dict[str, Any]) -> None:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4), 4, 30.0), 0.2, 4)
    y = g.conv(x, 4, 8, **attrs)
    y = g.quant(g.batch_norm(y, 8), 0.25, 4)
    assert_equivalent(g.classifier(y), images(SHAPE))


def test_depthwise_reads_channels_of_different_scale() -> None:
    g = Graph(SHAPE)
    x = g.quant(g.conv(g.image(), 3, 4), np.array([0.3, 0.4, 0.6, 1.1]).reshape(1, 4, 1, 1), 4)
    y = g.quant(g.batch_norm(g.conv(x, 4, 4, groups=4), 4), 0.25, 4)
    assert_equivalent(g.classifier(y), images(SHAPE))


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_with_factors_and_bias(transposed: bool) -> None:
    g = Graph((12,))
    x = g.image()
    for inputs, outputs in ((12, 7), (7, 5)):
        shape = (outputs, inputs) if transposed else (inputs, outputs)
        w = g.weight(shape, axis=0 if transposed else 1)
        bias = g.constant(g.rng.normal(size=outputs))
        x = g.node("Gemm", x, w, bias, transB=int(transposed), alpha=0.5, beta=2.0)
        x = g.quant(x, 0.1, 4) if outputs == 7 else x
    assert_equivalent(g.model(x), images((12,)))


def test_transposed_weights() -> None:
    g = Graph((12,))
    w = g.node("Transpose", g.weight((5, 12), axis=0), perm=[1, 0])
    x = g.node("Add", g.node("MatMul", g.image(), w), g.constant(g.rng.normal(size=5)))
    assert_equivalent(g.model(x), images((12,)))


def test_constant_arithmetic_between_accumulator_and_quantizer() -> None:
    g = Graph(SHAPE)
    channel = (1, 4, 1, 1)
    x = g.conv(g.image(), 3, 4)
    x = g.node("Mul", x, g.constant(g.rng.uniform(0.5, 2, channel)))
    x = g.node("Add", g.constant(0.25), x)
    x = g.node("Sub", x, g.constant(g.rng.normal(size=channel)))
    x = g.node("Sub", g.constant(g.rng.normal(size=channel)), x)
    x = g.node("Div", x, g.constant(g.rng.uniform(2, 6, channel)))
    x = g.quant(g.node("Mul", g.constant(-1.0), x), 0.2, 4)
    assert_equivalent(g.classifier(x), images(SHAPE))


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.3, 2.0), (None, 0.7), (0.5, None)])
def test_clip_then_scale(bounds: tuple[float | None, float | None]) -> None:
    g = Graph(SHAPE)
    x = g.batch_norm(g.conv(g.image(), 3, 4), 4, spread=20.0)
    x = g.node("Clip", x, *("" if b is None else g.constant(b) for b in bounds))
    x = g.node("Mul", x, g.constant(np.array([1.0, -2.0, 0.5, -0.25]).reshape(1, 4, 1, 1)))
    network = assert_equivalent(g.classifier(g.quant(x, 0.13, 5)), images(SHAPE))
    assert network.layers[1].op == "Threshold"


def test_clips_that_do_not_meet_leave_the_last_ones_edge() -> None:
    g = Graph(SHAPE)
    x = g.batch_norm(g.conv(g.image(), 3, 4), 4, spread=20.0)
    x = g.node("Clip", x, g.constant(-3.0), g.constant(-1.0))
    x = g.quant(g.node("Clip", x, g.constant(0.5), g.constant(2.0)), 0.25, 4)
    network = assert_equivalent(g.classifier(x), images(SHAPE))
    assert network.layers[1].low.tolist() == network.layers[1].high.tolist() == [2] * 4


def test_a_dead_channel_is_constant() -> None:
    g = Graph(SHAPE)
    x = g.conv(g.image(), 3, 2)
    x = g.node("Mul", x, g.constant(np.array([0.0, 0.1]).reshape(1, 2, 1, 1)))
    x = g.node("Add", x, g.constant(np.array([0.6, 0.0]).reshape(1, 2, 1, 1)))
    network = assert_equivalent(g.classifier(g.quant(x, 0.25, 4)), images(SHAPE))
    assert network.layers[1].low[0] == network.layers[1].high[0] == 2


@pytest.mark.slow  # lowers large networks
@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [2, 2], "dilations": [2, 2]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    ],
)
@pytest.mark.parametrize("place", ["codes", "accumulator", "batch norm", "relu"])
def test_max_pool_anywhere(attrs: dict[str, Any], place: str) -> None:
    g = Graph(SHAPE)
    x = g.conv(g.image(), 3, 4)
    if place == "codes":
        x = g.quant(g.batch_norm(x, 4, spread=30.0), 0.2, 4)
    elif place != "accumulator":
        x = g.batch_norm(x, 4)  # negative gammas: the maximum of the value is n's minimum
    if place == "relu":
        x = g.node("Relu", x)
    x = g.node("MaxPool", x, **attrs)
    y = x if place == "codes" else g.quant(x, 0.3, 4)
    network = assert_equivalent(g.classifier(y), images(SHAPE))
    pool = network.layer("MaxPool_0")
    assert isinstance(pool, MaxPool)
    assert pool.mirrored == (place != "relu")
    assert (pool.signs < 0).any() == (place in ("batch norm", "relu"))


@pytest.mark.parametrize(
    "pool",
    [
        lambda g, x: g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
        lambda g, x: g.node("AveragePool", x, kernel_shape=[3, 2]),
        lambda g, x: g.node(
            "AveragePool", x, kernel_shape=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1
        ),
        lambda g, x: g.node("GlobalAveragePool", x),
        lambda g, x: g.node("ReduceMean", x, g.constant([2, 3], np.int64), keepdims=0),
        lambda g, x: g.node("ReduceMean", x, g.constant([-1, -2], np.int64), keepdims=1),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_average_pools_are_sums(pool: Callable[[Graph, str], str], biased: bool) -> None:
    g = Graph(SHAPE)
    x = g.quant(g.conv(g.image(), 3, 4), 0.5, 4)
    if biased:
        x = g.quant(g.batch_norm(g.conv(x, 4, 4), 4), 0.3, 4, narrow=True)
    network = assert_equivalent(g.classifier(g.quant(pool(g, x), 0.1137, 6)), images(SHAPE))
    assert "SumPool" in [layer.op for layer in network.accumulators]


def test_average_of_an_accumulator_with_bias() -> None:
    g = Graph(SHAPE)
    x = g.batch_norm(g.conv(g.image(), 3, 4), 4, spread=30.0)
    x = g.quant(g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 0.2, 5)
    assert_equivalent(g.classifier(x), images(SHAPE))


@pytest.mark.parametrize("scales", [(0.25, 0.25), (0.25, 0.5), (0.8, 0.1)])
def test_residual_addition(scales: tuple[float, float]) -> None:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4), 4, 30.0), scales[0], 4)
    y = g.batch_norm(g.conv(x, 4, 4, pads=[1, 1, 1, 1]), 4, 30.0)
    y = g.node("Add", x, g.quant(y, scales[1], 3))
    network = assert_equivalent(g.classifier(g.quant(g.node("Relu", y), 0.37, 4)), images(SHAPE))
    assert isinstance(network.layer("Add_0"), Add)


def test_residual_addition_feeds_two_more_branches() -> None:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4), 4, 30.0), 0.2, 4)
    for _ in range(2):
        y = g.batch_norm(g.conv(x, 4, 4, pads=[1, 1, 1, 1]), 4, 30.0)
        x = g.quant(g.node("Add", x, g.quant(y, 0.2, 4)), 0.2, 4)
    assert_equivalent(g.classifier(x), images(SHAPE))


def test_shapes_without_arithmetic() -> None:
    g = Graph(SHAPE)
    x = g.node("Identity", g.quant(g.conv(g.image(), 3, 4), 0.5, 4))
    x = g.node("MaxPool", x, kernel_shape=[6, 6])
    x = g.node("Transpose", g.node("Dropout", x), perm=[0, 2, 3, 1])
    x = g.node("Reshape", x, g.constant([1, -1], np.int64))
    x = g.node("Unsqueeze", x, g.constant([2], np.int64))
    x = g.node("Squeeze", x, g.constant([2], np.int64))
    assert_equivalent(g.model(g.linear(x, 4, 5)), images(SHAPE))


def test_flattened_channels_keep_their_scales() -> None:
    g = Graph(SHAPE)
    x = g.node("Flatten", g.batch_norm(g.conv(g.image(), 3, 4), 4, 30.0), axis=1)
    assert_equivalent(g.classifier(g.quant(x, 0.2, 4)), images(SHAPE))


def test_float_operators_before_the_first_quantizer() -> None:
    g = Graph(SHAPE)
    x = g.node("Sub", g.node("Mul", g.constant(2.0), "image"), g.constant([1.0]))
    x = g.node("Div", x, g.constant(g.rng.uniform(0.3, 2, (1, 3, 1, 1))))
    x = g.node("Add", x, g.constant(0.01))
    x = g.node("Reshape", x, g.constant([1, 12, 4, 4], np.int64))
    x = g.quant(g.conv(g.quant(x, 1 / 128, 8), 12, 4), 0.5, 4)
    network = assert_equivalent(g.classifier(x), images(SHAPE))
    assert [s.op for s in network.input.preamble] == ["Mul", "Sub", "Div", "Add", "Reshape"]


def test_float_constants_after_the_last_accumulator() -> None:
    g = Graph((12,))
    x = g.node("MatMul", g.image(), g.weight((12, 5), axis=1))
    for op, value in (("Sub", 0.3), ("Div", 1.7), ("Mul", [1.0, 2, -3, 4, 5]), ("Add", 0.1)):
        x = g.node(op, x, g.constant(value))
    network = assert_equivalent(g.model(x), images((12,)))
    assert [layer.name for layer in network.layers] == ["MatMul_0"]


def test_quantized_bias() -> None:
    g = Graph((12,))
    bias = g.quant(g.constant(g.rng.normal(size=5)), 0.01, 16)
    x = g.node("MatMul", g.image(), g.weight((12, 5), axis=1))
    assert_equivalent(g.model(g.node("Add", x, bias)), images((12,)))


def test_output_of_a_pooling_network_with_spatial_axes_of_length_one() -> None:
    g = Graph(SHAPE)
    x = g.node("GlobalAveragePool", g.conv(g.image(), 3, 5, bias=True))
    assert_equivalent(g.model(x), images(SHAPE))


SIGNAL = (3, 17)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"strides": [2], "pads": [1, 2]},
        {"dilations": [3], "groups": 2},
        {"auto_pad": "SAME_UPPER", "kernel": (4,), "bias": True},
        {"groups": 4, "bits": 8},
    ],
)
def test_convolutions_of_signals(attrs: dict[str, Any]) -> None:
    g = Graph(SIGNAL)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4, 30.0), 0.2, 4)
    x = g.conv(x, 4, 8, **{"kernel": (3,), **attrs})
    network = assert_equivalent(g.classifier(g.quant(g.batch_norm(x, 8), 0.25, 4)), images(SIGNAL))
    assert network.input_shape == SIGNAL
    assert network.input.shape == (3, 1, 17)
    conv = network.layers[2]
    assert isinstance(conv, Conv)
    assert conv.shape[1] == 1
    assert conv.weight.shape[2] == 1


def test_constants_of_each_channel() -> None:
    g = Graph((4, 9))
    image = g.quant("image", np.array([0.01, 0.02, 0.005, 0.01]).reshape(1, 4, 1), 7, False)
    x = g.conv(image, 4, 4, (3,), groups=4, bias=True)
    x = g.node("Mul", x, g.constant(np.array([1.0, -2.0, 0.5, 3.0]).reshape(1, 4, 1)))
    x = g.node("Add", g.constant(np.array([0.1, 0.2, -0.3, 0.4]).reshape(4, 1)), x)
    x = g.quant(x, np.array([0.3, 0.4, 0.1, 0.2]).reshape(1, 4, 1), 4)
    assert_equivalent(g.classifier(g.quant(g.node("Relu", x), 0.21, 3)), images((4, 9)))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("MaxPool", {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [2], "pads": [1, 0]}),
        ("AveragePool", {"kernel_shape": [4], "pads": [0, 2]}),
        ("AveragePool", {"kernel_shape": [2], "strides": [2]}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
    ],
)
def test_pools(op: str, attrs: dict[str, Any]) -> None:
    g = Graph(SIGNAL)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4, 30.0), 0.2, 4)
    x = g.quant(g.node(op, x, **attrs), 0.1713, 4)
    assert_equivalent(g.classifier(x), images(SIGNAL))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(op: str, keepdims: int) -> None:
    g = Graph(SIGNAL)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4, 30.0), 0.2, 4)
    x = g.node(op, x, g.constant([-1], np.int64), keepdims=keepdims)
    assert_equivalent(g.classifier(g.quant(x, 0.1713, 4)), images(SIGNAL))


def test_padding_and_branches() -> None:
    g = Graph(SIGNAL)
    a = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4), 0.2, 4)
    b = g.node("Pad", a, g.constant([0, 0, 2, 0, 0, 1], np.int64))
    b = g.quant(g.batch_norm(g.conv(b, 4, 4, (4,)), 4), 0.4, 4)
    x = g.node("Concat", g.node("Add", a, b), a, axis=1)
    x = g.node("Flatten", g.node("MaxPool", x, kernel_shape=[2], strides=[2]))
    x = g.node("Reshape", x, g.constant([1, 8, 7], np.int64))
    x = g.quant(g.batch_norm(g.conv(x, 8, 2, (3,)), 2), 0.3, 4)
    network = assert_equivalent(g.classifier(x), images(SIGNAL))
    assert {len(layer.shape) for layer in network.layers} == {1, 3}


def test_windows_without_a_common_divisor_are_refused() -> None:
    g = Graph((2, 60))
    x = g.node("AveragePool", g.image(), kernel_shape=[41], pads=[20, 20])
    with pytest.raises(LoweringError, match=r"divide by 21, 22.*no small common multiple"):
        lower(g.classifier(g.quant(x, 0.3, 4)))
