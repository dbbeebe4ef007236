"""Signals (N, C, L): maps of height 1."""

from typing import Any

import numpy as np
import pytest
from equivalence import assert_equivalent
from qonnx_graphs import Graph, images

from fpga_flow.lowering import LoweringError, lower
from fpga_flow.lowering.ir import Conv

SHAPE = (3, 17)


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
def test_convolutions(attrs: dict[str, Any]) -> None:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4, 30.0), 0.2, 4)
    x = g.conv(x, 4, 8, **{"kernel": (3,), **attrs})
    network = assert_equivalent(g.classifier(g.quant(g.batch_norm(x, 8), 0.25, 4)), images(SHAPE))
    assert network.input_shape == SHAPE
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
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4, 30.0), 0.2, 4)
    x = g.quant(g.node(op, x, **attrs), 0.1713, 4)
    assert_equivalent(g.classifier(x), images(SHAPE))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(op: str, keepdims: int) -> None:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4, 30.0), 0.2, 4)
    x = g.node(op, x, g.constant([-1], np.int64), keepdims=keepdims)
    assert_equivalent(g.classifier(g.quant(x, 0.1713, 4)), images(SHAPE))


def test_padding_and_branches() -> None:
    g = Graph(SHAPE)
    a = g.quant(g.batch_norm(g.conv(g.image(), 3, 4, (3,)), 4), 0.2, 4)
    b = g.node("Pad", a, g.constant([0, 0, 2, 0, 0, 1], np.int64))
    b = g.quant(g.batch_norm(g.conv(b, 4, 4, (4,)), 4), 0.4, 4)
    x = g.node("Concat", g.node("Add", a, b), a, axis=1)
    x = g.node("Flatten", g.node("MaxPool", x, kernel_shape=[2], strides=[2]))
    x = g.node("Reshape", x, g.constant([1, 8, 7], np.int64))
    x = g.quant(g.batch_norm(g.conv(x, 8, 2, (3,)), 2), 0.3, 4)
    network = assert_equivalent(g.classifier(x), images(SHAPE))
    assert {len(layer.shape) for layer in network.layers} == {1, 3}


def test_windows_without_a_common_divisor_are_refused() -> None:
    g = Graph((2, 60))
    x = g.node("AveragePool", g.image(), kernel_shape=[41], pads=[20, 20])
    with pytest.raises(LoweringError, match=r"divide by 21, 22.*no small common multiple"):
        lower(g.classifier(g.quant(x, 0.3, 4)))
