"""Padding by numbers, by rules and by Pad nodes, and windows that reach over the edge."""

from typing import Any

import numpy as np
import pytest
from equivalence import assert_equivalent
from qonnx_graphs import Graph, images

from fpga_flow.lowering import LoweringError, clean, lower
from fpga_flow.lowering.ir import Conv, MaxPool, Pad, SumPool

SHAPE = (3, 9, 7)


def codes(g: Graph, signed: bool = True) -> str:
    x = g.batch_norm(g.conv(g.image(), 3, 4), 4, 30.0)
    return g.quant(x, 0.2, 4, signed)


def padded(g: Graph, x: str, ends: tuple[int, int, int, int], value: float | None = None) -> str:
    top, left, bottom, right = ends
    pads = g.constant([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return g.node("Pad", x, pads, *([] if value is None else [g.constant(value)]))


@pytest.mark.parametrize(
    ("mode", "pads"),
    [("SAME_UPPER", (1, 2, 2, 3)), ("SAME_LOWER", (2, 3, 1, 2)), ("VALID", (0, 0, 0, 0))],
)
def test_rules_become_numbers(mode: str, pads: tuple[int, ...]) -> None:
    g = Graph(SHAPE)
    x = g.conv(codes(g), 4, 4, (4, 3), dilations=[1, 2], auto_pad=mode, strides=[1, 2])
    network = assert_equivalent(g.classifier(g.quant(g.batch_norm(x, 4), 0.25, 4)), images(SHAPE))
    # maps of 7 by 5 pixels: 3 rows are missing; 4 columns, for 3 windows 2 pixels apart.
    conv = network.layers[2]
    assert isinstance(conv, Conv)
    assert conv.pads == (
        (1, 2, 2, 2) if mode == "SAME_UPPER" else (2, 2, 1, 2) if mode == "SAME_LOWER" else pads
    )


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_rules_of_pools(op: str, mode: str) -> None:
    g = Graph(SHAPE)
    x = g.node(op, codes(g), kernel_shape=[2, 3], strides=[2, 2], auto_pad=mode)
    assert_equivalent(g.classifier(g.quant(x, 0.17, 5)), images(SHAPE))


def test_zeros_in_front_of_convolutions_become_their_padding() -> None:
    g = Graph(SHAPE)
    x = padded(g, codes(g), (0, 1, 2, 0))
    a, b = g.conv(x, 4, 4, pads=[1, 1, 1, 1], scale=0.5), g.conv(x, 4, 4, (3, 1), scale=0.5)
    model = g.classifier(
        g.quant(
            g.batch_norm(g.node("Add", g.node("MaxPool", a, kernel_shape=[3, 1]), b), 4), 0.3, 4
        )
    )
    assert "Pad" not in {node.op_type for node in clean(model).graph.node}
    network = assert_equivalent(model, images(SHAPE))
    assert {layer.pads for layer in network.layers[2:] if isinstance(layer, Conv)} == {
        (1, 2, 3, 1),
        (0, 1, 2, 0),
    }


@pytest.mark.parametrize("signed", [False, True])
def test_zeros_in_front_of_a_max_pool(signed: bool) -> None:
    g = Graph(SHAPE)
    x = g.node("MaxPool", padded(g, codes(g, signed), (0, 1, 1, 0)), kernel_shape=[2, 2])
    network = assert_equivalent(g.classifier(x), images(SHAPE))
    pool = next(layer for layer in network.layers if isinstance(layer, MaxPool))
    # Zeros win against negative codes, as the padding of a pool never does.
    assert pool.pads == ((0, 0, 0, 0) if signed else (0, 1, 1, 0))
    assert any(isinstance(layer, Pad) for layer in network.layers) == signed


def test_windows_of_nothing_but_zeros_keep_them() -> None:
    g = Graph(SHAPE)
    x = padded(g, codes(g, signed=False), (0, 3, 0, 0))
    network = assert_equivalent(
        g.classifier(g.node("MaxPool", x, kernel_shape=[2, 2])), images(SHAPE)
    )
    assert any(isinstance(layer, Pad) for layer in network.layers)


def test_the_image_is_padded_before_its_quantizer() -> None:
    g = Graph(SHAPE)
    x = g.quant(g.node("Sub", padded(g, "image", (0, 1, 2, 0), 0.25), g.constant(0.5)), 1 / 128, 8)
    x = g.quant(g.batch_norm(g.conv(x, 3, 4), 4), 0.25, 4)
    network = assert_equivalent(g.classifier(x), images(SHAPE))
    assert network.input.shape == (3, 11, 8)
    assert [step.op for step in network.input.preamble] == ["Pad", "Sub"]


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5])
def test_padding_that_is_an_integer_of_its_input(value: float) -> None:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4), 4), 0.25, 4)
    x = g.node("Relu", padded(g, x, (1, 0, 0, 2), value))
    network = assert_equivalent(g.classifier(g.quant(x, 0.41, 3)), images(SHAPE))
    (pad,) = (layer for layer in network.layers if isinstance(layer, Pad))
    assert (pad.fill, pad.pads) == (4 * value, (1, 0, 0, 2))


def test_one_bit_activations_and_zeros() -> None:
    g = Graph(SHAPE)
    x = g.bipolar(g.batch_norm(g.conv(g.image(), 3, 4), 4))
    x = g.conv(padded(g, x, (0, 0, 1, 1)), 4, 4)
    assert_equivalent(g.classifier(g.quant(g.batch_norm(x, 4), 0.3, 4)), images(SHAPE))


def test_padding_by_named_axes() -> None:
    g = Graph(SHAPE)
    axes, ends = g.constant([-1, 2], np.int64), g.constant([1, 0, 2, 3], np.int64)
    x = g.conv(g.node("Pad", codes(g), ends, "", axes), 4, 4)
    network = assert_equivalent(g.classifier(g.quant(g.batch_norm(x, 4), 0.3, 4)), images(SHAPE))
    assert isinstance(conv := network.layers[2], Conv)
    assert conv.pads == (0, 1, 3, 2)


@pytest.mark.parametrize(
    "attrs",
    [
        {"strides": [3, 3], "ceil_mode": 1},
        {"strides": [2, 3], "ceil_mode": 1, "pads": [1, 0, 0, 1]},
        {"strides": [3, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"strides": [2, 2], "pads": [1, 1, 0, 1], "ceil_mode": 1},
    ],
)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_at_the_edge(op: str, attrs: dict[str, Any]) -> None:
    attrs = {k: v for k, v in attrs.items() if op == "AveragePool" or k != "count_include_pad"}
    g = Graph(SHAPE)
    x = g.node(op, codes(g), kernel_shape=[3, 3], **attrs)
    network = assert_equivalent(g.classifier(g.quant(x, 0.1713, 5)), images(SHAPE))
    uneven = op == "AveragePool" and "count_include_pad" not in attrs
    pool = network.layers[2]
    assert isinstance(pool, SumPool | MaxPool)
    assert (isinstance(pool, SumPool) and len(np.unique(pool.factors)) > 1) == uneven


REFUSED = {
    "mirrored pixels": (
        lambda g: g.node(
            "Pad", codes(g), g.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect"
        ),
        "mode 'reflect'.*Pad with zeros",
    ),
    "channels": (
        lambda g: g.node("Pad", codes(g), g.constant([0, 1, 0, 0, 0, 1, 0, 0], np.int64)),
        "Pad only height and width",
    ),
    "cropping": (lambda g: padded(g, codes(g), (0, -1, 0, 0)), "no negative numbers"),
    "no integer": (lambda g: padded(g, codes(g), (0, 1, 0, 0), 0.3), "0.3 is no integer"),
    "behind a batch norm": (
        lambda g: padded(g, g.batch_norm(codes(g), 4), (0, 1, 0, 0)),
        "0 is no integer of its input.*not behind a bias or batch norm",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(build: Any, message: str) -> None:
    g = Graph(SHAPE)
    with pytest.raises(LoweringError, match=message):
        lower(g.model(g.quant(build(g), 0.3, 4)))
