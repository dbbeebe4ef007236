"""FINN's graph has the integers of the network, for each kind of layer that FINN itself mangles."""

from collections.abc import Callable

import numpy as np
import pytest
from qonnx.core.datatype import DataType
from qonnx_graphs import Graph, images

from fpga_flow.compile.codes import OneBit
from fpga_flow.compile.integer_graph import integer_graph
from fpga_flow.compile.obstacles import entry, obstacles
from fpga_flow.compile.worker_execution import execute
from fpga_flow.lowering import lower

SHAPE = (2, 6, 5)


def act(g: Graph, x: str, bits: int = 4, signed: bool = False) -> str:
    return g.quant(x, 6.0 / 2**bits, bits, signed)


def conv(g: Graph, x: str, inputs: int = 2, **attributes: object) -> str:
    return act(g, g.batch_norm(g.conv(x, inputs, 4, **attributes), 4))  # type: ignore[arg-type]


def pool(g: Graph, x: str, kernel: list[int], **attributes: object) -> str:
    return g.node("MaxPool", x, kernel_shape=kernel, **attributes)


def bipolar(g: Graph, padded: bool, pooled: bool = False) -> str:
    x = g.bipolar(g.batch_norm(g.conv(g.image(), 2, 4), 4), 0.7)
    if pooled:
        x = pool(g, x, [2, 1])
    return act(g, g.conv(x, 4, 3, pads=[1, 1, 1, 1] if padded else [0] * 4))


def preamble(g: Graph) -> str:
    x = g.node("Sub", g.node("Mul", "image", g.constant(2.0)), g.constant(1.0))
    return conv(g, g.quant(x, 1 / 127, 8))


def normalised(g: Graph) -> str:
    x = g.node("Sub", "image", g.constant([[[[0.4]], [[0.6]]]]))
    x = g.node("Div", x, g.constant([[[[0.2]], [[0.3]]]]))
    return conv(g, g.quant(x, 0.02, 8))


def hard_tanh(g: Graph) -> str:
    x = g.node("Clip", g.conv(g.image(), 2, 4), g.constant(-1.0), g.constant(1.0))
    return g.quant(x, 0.13, 4, narrow=True)


def linear(g: Graph, alpha: float) -> str:
    x = g.node("Flatten", g.image())
    x = g.node("Gemm", x, g.weight((7, 60), axis=0), transB=1, alpha=alpha)
    return act(g, x, signed=True)


def residual(g: Graph, x: str, shortcut: str | None = None) -> str:
    return act(g, g.node("Add", conv(g, x, 4, pads=[1] * 4), shortcut or x))


def concat(g: Graph, *branches: str) -> str:
    return g.node("Concat", *branches, axis=1)


def wider(g: Graph, x: str, inputs: int) -> str:
    """As in a densely connected network: the input and what a convolution makes of it."""
    return concat(g, x, conv(g, x, inputs, pads=[1] * 4))


KINDS: dict[str, Callable[[Graph], str]] = {
    "pool on the image": lambda g: pool(g, g.image(), [2, 2], strides=[2, 2]),
    "pool on the image, then a convolution": lambda g: conv(
        g, pool(g, g.image(), [2, 1], strides=[1, 1])
    ),
    "uneven padding of a pool": lambda g: pool(g, conv(g, g.image()), [2, 3], pads=[1, 0, 0, 2]),
    "a pool whose last window reaches over the edge": lambda g: pool(
        g, conv(g, g.image(), kernel=(1, 1)), [3, 2], strides=[2, 2], ceil_mode=1
    ),
    "alpha=-1": lambda g: linear(g, -1.0),
    "reshaped image": lambda g: act(
        g,
        g.node(
            "MatMul",
            g.node("Reshape", g.image(), g.constant([1, -1], np.int64)),
            g.weight((60, 4), axis=1),
        ),
    ),
    "2x - 1 before the image's quantizer": preamble,
    "mean and deviation a channel": normalised,
    "clip": hard_tanh,
    "floor": lambda g: g.quant(g.conv(g.image(), 2, 4), 0.4, 4, rounding="FLOOR"),
    "ceil": lambda g: g.quant(g.conv(g.image(), 2, 4), 0.4, 4, rounding="CEIL"),
    "narrow behind a ReLU": lambda g: g.quant(
        g.node("Relu", g.conv(g.image(), 2, 4)), 0.4, 3, signed=False, narrow=True
    ),
    "one bit, 0 and 1": lambda g: conv(g, act(g, g.conv(g.image(), 2, 4), bits=1), inputs=4),
    "one bit that is always 0": lambda g: g.quant(
        g.conv(g.image(), 2, 4), 0.4, 1, signed=False, narrow=True
    ),
    "one bit, -1 and +1, of another scale": lambda g: bipolar(g, padded=False),
    "one bit, -1 and +1, padded": lambda g: bipolar(g, padded=True),
    "one bit, -1 and +1, behind a pool": lambda g: bipolar(g, padded=False, pooled=True),
    "one bit, -1 and +1, behind one another": lambda g: act(
        g,
        g.conv(
            g.bipolar(
                g.batch_norm(g.conv(g.bipolar(g.conv(g.image(), 2, 4)), 4, 4, kernel=(2, 2)), 4)
            ),
            4,
            3,
            kernel=(1, 1),
        ),
    ),
    "one bit, -1 and +1, of a depthwise convolution": lambda g: act(
        g,
        g.batch_norm(g.conv(g.bipolar(g.conv(g.image(), 2, 4)), 4, 4, kernel=(2, 2), groups=4), 4),
    ),
    "one bit, -1 and +1, flattened": lambda g: act(
        g,
        g.node(
            "MatMul",
            g.node("Flatten", g.bipolar(g.conv(g.image(), 2, 4))),
            g.weight((48, 6), axis=1),
        ),
    ),
    "one-bit image": lambda g: conv(g, g.quant("image", 1.0, 1, signed=True)),
    "codes quantized again": lambda g: act(g, conv(g, g.image()), bits=2),
    "a scale for each channel": lambda g: g.node(
        "Flatten",
        g.quant(
            g.conv(g.image(), 2, 4), 0.3 * np.array([1, 2, 3, 4]).reshape(1, 4, 1, 1), 4, False
        ),
    ),
    "signs that weights of full range cannot take": lambda g: act(
        g,
        g.batch_norm(
            g.node("Conv", g.image(), g.quant(g.constant(np.full((4, 2, 3, 3), -8.0)), 1.0, 4)), 4
        ),
    ),
    "a kernel shorter than its stride": lambda g: conv(
        g, g.image(), kernel=(2, 1), strides=[3, 2], pads=[1, 0, 0, 0]
    ),
    "a dilated kernel shorter than its stride": lambda g: conv(
        g, g.image(), kernel=(2, 1), strides=[4, 1], dilations=[2, 1], pads=[1, 0, 2, 0]
    ),
    "a kernel as large as the map": lambda g: conv(g, g.image(), kernel=(6, 5)),
    "a factor a channel": lambda g: act(g, g.conv(g.image(), 2, 2, kernel=(1, 1), groups=2)),
    "few single pixels": lambda g: conv(g, g.image(), kernel=(1, 1), strides=[3, 3]),
    "a stride beyond the map": lambda g: conv(
        g, g.image(), kernel=(5, 5), strides=[7, 9], pads=[0, 1, 0, 1]
    ),
    "a padded map of one row": lambda g: conv(
        g, conv(g, g.image(), kernel=(6, 2)), inputs=4, kernel=(3, 2), pads=[1, 0, 1, 0]
    ),
    "a dilated kernel on a map of one row": lambda g: conv(
        g,
        conv(g, g.image(), kernel=(6, 2)),
        inputs=4,
        kernel=(3, 2),
        pads=[2, 0, 2, 0],
        dilations=[2, 2],
    ),
    "depthwise": lambda g: act(g, g.conv(g.image(), 2, 2, groups=2, strides=[2, 1])),
    "depthwise with two outputs a channel": lambda g: act(g, g.conv(g.image(), 2, 4, groups=2)),
    "two groups": lambda g: act(g, g.conv(conv(g, g.image()), 4, 6, groups=2)),
    "averages of windows": lambda g: act(
        g,
        g.node("AveragePool", conv(g, g.image()), kernel_shape=[2, 2], strides=[2, 1]),
    ),
    "averages of windows with padding": lambda g: act(
        g,
        g.node(
            "AveragePool",
            conv(g, g.image()),
            kernel_shape=[3, 2],
            pads=[1, 0, 1, 1],
            count_include_pad=1,
        ),
    ),
    "a residual sum": lambda g: residual(g, conv(g, g.image())),
    "residual sums behind and inside of one another": lambda g: residual(
        g, residual(g, x := conv(g, g.image())), x
    ),
    "a residual sum of signed codes": lambda g: residual(
        g, act(g, g.conv(g.image(), 2, 4), 4, True)
    ),
    "a shortcut with a convolution": lambda g: act(
        g,
        g.node(
            "Add",
            conv(g, x := conv(g, g.image()), 4, strides=[2, 2], pads=[1] * 4),
            conv(g, x, 4, kernel=(1, 1), strides=[2, 2]),
        ),
    ),
    "an average of one pixel": lambda g: act(
        g, g.node("GlobalAveragePool", conv(g, g.image(), kernel=(6, 5)))
    ),
    "a residual sum of one pixel": lambda g: residual(g, pool(g, conv(g, g.image()), [4, 3])),
    "an average of the whole map": lambda g: act(
        g, g.node("GlobalAveragePool", conv(g, g.image()))
    ),
    "an average as the last layer but one": lambda g: g.node(
        "GlobalAveragePool", conv(g, g.image())
    ),
    "a concatenation": lambda g: conv(
        g,
        concat(
            g,
            conv(g, x := conv(g, g.image()), 4, kernel=(1, 1)),
            conv(g, x, 4, pads=[1] * 4),
        ),
        inputs=8,
    ),
    "concatenations of more and more channels": lambda g: wider(
        g, wider(g, conv(g, g.image()), 4), 8
    ),
    "a concatenation of three branches": lambda g: act(
        g,
        concat(
            g,
            conv(g, x := conv(g, g.image()), 4, kernel=(1, 1)),
            pool(g, x, [3, 3], pads=[1] * 4),
            conv(g, x, 4, pads=[1] * 4),
        ),
    ),
    "a concatenation of signed, unsigned, narrow and wide codes": lambda g: act(
        g,
        concat(
            g,
            g.quant(g.conv(g.image(), 2, 2), 0.4, 4),
            g.quant(g.conv(g.image(), 2, 3), 0.4, 4, signed=False),
            g.quant(g.conv(g.image(), 2, 1), 0.4, 6),
        ),
    ),
    "a concatenation of unrelated scales before a quantizer": lambda g: act(
        g,
        concat(
            g,
            g.quant(g.conv(g.image(), 2, 2), 0.3, 4, signed=False),
            g.quant(g.conv(g.image(), 2, 3), 0.5, 4, signed=False),
        ),
    ),
    "a concatenation behind a sum": lambda g: concat(
        g, x := residual(g, conv(g, g.image())), conv(g, x, 4, pads=[1] * 4)
    ),
    "a concatenation of one pixel": lambda g: conv(
        g,
        concat(g, x := pool(g, conv(g, g.image()), [4, 3]), conv(g, x, 4, kernel=(1, 1))),
        inputs=8,
        kernel=(1, 1),
    ),
    "concatenated vectors": lambda g: concat(
        g,
        x := linear(g, 1.0),
        act(g, g.node("Gemm", x, g.weight((3, 7), axis=0), transB=1), signed=True),
    ),
    "a concatenation with the image": lambda g: act(
        g, concat(g, g.image(), conv(g, g.image(), pads=[1] * 4))
    ),
    "a sum with the image": lambda g: act(
        g, g.node("Add", g.image(), g.quant(g.conv(g.image(), 2, 2, pads=[1] * 4), 1 / 255, 8))
    ),
    "x beside x": lambda g: concat(g, *[conv(g, g.image())] * 2),
    "x + x": lambda g: act(g, g.node("Add", *[conv(g, g.image())] * 2)),
}


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a scale for each channel"])
def test_the_graph_has_the_networks_integers(kind: str, bits: bool) -> None:
    g = Graph(SHAPE, seed=1)
    network = lower(g.classifier(KINDS[kind](g)))
    assert list(obstacles(network)) == []
    if bits and not OneBit.of(network).codes:
        return  # the same graph
    model, batch = integer_graph(network, bits), images(SHAPE, 12)
    codes = network.input.codes(batch).reshape(12, *entry(network).shape)
    sums = execute(model, codes.astype(np.float32))[model.graph.output[0].name].reshape(12, -1)
    assert np.array_equal(sums, network.run(batch)[network.output.tensor])


ONE_BIT = {
    "one bit, 0 and 1": 1,
    "one bit, -1 and +1, of another scale": 1,
    "one bit, -1 and +1, padded": 0,  # no bit means 0
    "one bit, -1 and +1, behind a pool": 1,
    "one bit, -1 and +1, behind one another": 2,
    "one bit, -1 and +1, of a depthwise convolution": 0,  # FINN has no unit for them
    "one bit, -1 and +1, flattened": 1,
    "one-bit image": 0,
    "a residual sum": 0,
}


@pytest.mark.parametrize("kind", ONE_BIT)
def test_codes_of_two_values_are_bits_where_only_weights_read_them(kind: str) -> None:
    g = Graph(SHAPE, seed=1)
    assert len(OneBit.of(lower(g.classifier(KINDS[kind](g)))).codes) == ONE_BIT[kind]


def test_no_tensor_is_of_one_bit_for_finns_own_modules() -> None:
    g = Graph(SHAPE, seed=1)
    x = conv(g, act(g, g.conv(g.quant("image", 1.0, 1, signed=False), 2, 4), bits=1), inputs=4)
    model = integer_graph(lower(g.classifier(act(g, g.bipolar(x), bits=1))))
    for node in model.graph.node:
        for name in (node.input[0], node.output[0]):
            assert model.get_tensor_datatype(name).bitwidth() >= 2, node
    assert model.get_tensor_datatype(model.graph.input[0].name) == DataType["UINT2"]


REFUSED: dict[str, tuple[Callable[[Graph], str], str]] = {
    "a pool stride larger than its kernel": (
        lambda g: pool(g, conv(g, g.image()), [1, 2], strides=[2, 2]),
        "larger stride, 2 x 2",
    ),
    "a padded pool of signed codes": (
        lambda g: pool(g, act(g, g.conv(g.image(), 2, 4), signed=True), [2, 2], pads=[1, 1, 0, 0]),
        "signed codes",
    ),
    "a padded pool of signed codes that are never negative": (
        lambda g: pool(g, act(g, conv(g, g.image()), signed=True), [2, 2], pads=[1, 1, 0, 0]),
        "signed codes",
    ),
    "a pool on sums": (lambda g: act(g, pool(g, g.conv(g.image(), 2, 4), [2, 2])), "its input"),
    "a negative factor between quantizers": (
        lambda g: act(g, g.node("Mul", conv(g, g.image()), g.constant(-1.0)), signed=True),
        "negative factor",
    ),
    "thresholds of -1 and 0 only": (
        lambda g: g.quant(
            g.node(
                "Add",
                g.node("Conv", g.image(scale=1.0), g.weight((4, 2, 3, 3), axis=None, scale=1.0)),
                g.constant(0.3),
            ),
            0.5,
            2,
        ),
        "a type of one bit",
    ),
    "several windows on a map of one row": (
        lambda g: conv(
            g, conv(g, g.image(), kernel=(6, 2)), inputs=4, kernel=(3, 2), pads=[2, 0, 2, 0]
        ),
        "map of one",
    ),
    "branches of different scales": (
        lambda g: act(
            g,
            g.node("Add", act(g, conv(g, x := conv(g, g.image()), 4, pads=[1] * 4), bits=3), x),
        ),
        "different scales",
    ),
    "a branch that ends in sums": (
        lambda g: act(
            g,
            g.node(
                "Add",
                g.node(
                    "Conv",
                    g.quant(x := conv(g, g.image()), 0.5, 4, signed=False),
                    g.weight((4, 4, 1, 1), axis=None, scale=0.75),
                ),
                x,
            ),
        ),
        "no quantizer follows",
    ),
    "a branch with a kernel as large as the map": (
        lambda g: act(
            g,
            g.node(
                "Add",
                conv(g, x := conv(g, g.image()), 4, kernel=(4, 3)),
                pool(g, x, [4, 3]),
            ),
        ),
        "as large as the map",
    ),
    "averages of different numbers of pixels": (
        lambda g: act(
            g, g.node("AveragePool", conv(g, g.image()), kernel_shape=[2, 2], pads=[1, 1, 1, 1])
        ),
        "different numbers of pixels",
    ),
    "concatenated branches of different scales": (
        lambda g: act(
            g,
            concat(g, act(g, conv(g, x := conv(g, g.image()), 4, pads=[1] * 4), bits=3), x),
        ),
        "different scales",
    ),
    "concatenated sums": (
        lambda g: act(g, concat(g, g.conv(g.image(), 2, 4), g.conv(g.image(), 2, 3))),
        "no quantizer follows",
    ),
    "concatenated sums of which some change their sign": (
        lambda g: act(
            g,
            g.batch_norm(concat(g, g.conv(g.image(), 2, 4), g.conv(g.image(), 2, 3)), 7),
        ),
        "no quantizer follows",
    ),
    "concatenated sums of one pixel": (
        lambda g: act(
            g,
            concat(g, *(g.node("Flatten", g.conv(g.image(), 2, n, kernel=(6, 5))) for n in (2, 3))),
        ),
        "no quantizer follows",
    ),
    "concatenated flattened maps": (
        lambda g: concat(g, *(g.node("Flatten", conv(g, g.image())) for _ in "ab")),
        "a flattened map",
    ),
    "a padded pool of a concatenation with signed codes": (
        lambda g: pool(
            g,
            concat(g, act(g, x := conv(g, g.image()), signed=True), x),
            [2, 2],
            pads=[1, 1, 0, 0],
        ),
        "signed codes",
    ),
    "a single window of two pixels": (
        lambda g: pool(
            g,
            act(g, g.batch_norm(g.conv(g.image(), 2, 1, kernel=(6, 3)), 1)),
            [1, 2],
            strides=[1, 2],
        ),
        "two pixels of one channel",
    ),
    "a layer of zeros": (
        lambda g: act(
            g, g.node("Conv", g.image(), g.quant(g.constant(np.zeros((4, 2, 3, 3))), 1.0, 4))
        ),
        "all its weights are 0",
    ),
    "a kernel with weights for nothing but padding": (
        lambda g: act(
            g,
            g.node(
                "Conv",
                conv(g, g.image(), kernel=(6, 2)),
                g.quant(g.constant(np.eye(3)[[0]].T * np.ones((4, 4, 3, 2))), 1.0, 4),
                pads=[1, 0, 1, 0],
            ),
        ),
        "all its weights are 0",
    ),
    "sums that float32 does not hold": (
        lambda g: act(
            g,
            g.node(
                "MatMul",
                g.node("Flatten", act(g, g.conv(g.image(), 2, 400, kernel=(1, 1)), bits=8)),
                g.quant(g.constant(np.full((12000, 2), 1.0)), 0.01, 8),
            ),
        ),
        "2^24",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_finn_has_no_hardware_for_is_refused_with_the_reason(kind: str) -> None:
    build, reason = REFUSED[kind]
    g = Graph(SHAPE, seed=1)
    x = build(g)
    network = lower(g.model(g.linear(x, 2, 3)) if "sums that" in kind else g.classifier(x))
    found = list(obstacles(network))
    assert reason in found[0].problem
    assert not any("negative factor" in one.problem for one in found[1:])
    assert found[0].layer in network.layers
    assert found[0].remedy
