"""The network: addressing, ranges, description, immutability."""

import numpy as np
import pytest
from qonnx_graphs import Graph, images

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import Network, lower
from fpga_flow.lowering.ir import Conv, bits_for

SHAPE = (2, 8, 8)


@pytest.fixture(scope="module")
def network() -> Network:
    g = Graph(SHAPE)
    x = g.quant(g.node("Relu", g.batch_norm(g.conv(g.image(), 2, 4, bits=3), 4, 40.0)), 0.1, 4)
    x = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = g.conv(x, 4, 6, bits=1, groups=2, bias=True)
    y = g.node("MaxPool", g.node("Relu", y), kernel_shape=[1, 1])
    return lower(g.classifier(g.quant(y, 0.3, 2, signed=False)))


def test_names_of_layers_and_of_tensors_address_the_same(network: Network) -> None:
    assert network.layer("Conv_0") is network.layer("Conv_0_out0")
    assert network.layer("Quant_0") is network.input
    with pytest.raises(InputError, match=r"'Conv_00': did you mean 'Conv_0'"):
        network.layer("Conv_00")


def test_integers_of_a_biased_tensor(network: Network) -> None:
    conv = network.layer("Conv_1")
    assert conv.bias.any()
    n = network.run(images(SHAPE))[conv.output]
    values = (n * conv.scale + conv.bias).astype(np.float32)
    assert np.array_equal(network.to_integers("Conv_1_out0", values), n)


def test_a_tensor_behind_a_folded_relu_has_no_integers(network: Network) -> None:
    assert network.layer("MaxPool_1").tensor is None
    with pytest.raises(InputError, match="mirrored tensor"):
        network.to_integers("MaxPool_1_out0", np.zeros((1, 6, 2, 2)))


def test_guaranteed_range_is_reached_and_not_passed() -> None:
    g = Graph(SHAPE)
    lowered = lower(g.classifier(g.quant(g.conv(g.image(bits=3, scale=1 / 7), 2, 4), 0.5, 4)))
    conv = lowered.layer("Conv_0")
    assert isinstance(conv, Conv)
    for channel in range(4):
        for wanted, sign in ((conv.high, 1), (conv.low, -1)):
            image = np.zeros((1, *SHAPE), dtype=np.float32)
            image[0, :, :3, :3] = conv.weight[channel] * sign > 0
            reached = lowered.run(image)["Conv_0_out0"][0, channel, 0, 0]
            assert reached == wanted[channel]


def test_description(network: Network) -> None:
    rows = {row.name: row for row in network.describe()}
    assert list(rows) == [network.input.name, *(layer.name for layer in network.layers)]
    conv = rows["Conv_1"]
    assert (conv.weight_bits, conv.activation_bits, conv.op) == (1, 4, "Conv")
    assert (conv.input_shape, conv.output_shape) == ((4, 3, 3), (6, 1, 1))
    assert (conv.parameters, conv.macs) == (6 * 2 * 9, 6 * 2 * 9)
    layer = network.layer("Conv_1")
    assert conv.accumulator_bits == bits_for(int(layer.low.min()), int(layer.high.max()))
    assert rows["Conv_0"].macs == 4 * 2 * 9 * 36
    quantizer = rows[network.layers[1].name]
    assert (quantizer.activation_bits, quantizer.accumulator_bits) == (4, None)
    assert quantizer.parameters == 4 * 15


def test_arrays_are_read_only(network: Network) -> None:
    conv = network.layer("Conv_0")
    assert isinstance(conv, Conv)
    for array in (conv.weight, conv.low, conv.scale, network.output.scale):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        conv.bits = 3  # type: ignore[misc]


def test_run_checks_images(network: Network) -> None:
    with pytest.raises(InputError, match=r"float32 \(N, 2, 8, 8\) in \[0, 1\]"):
        network.run(np.zeros((1, *SHAPE)))


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(0, 0, 1), (0, 1, 1), (0, 255, 8), (0, 256, 9), (-1, 1, 2), (-128, 127, 8), (-129, 0, 9)],
)
def test_bits(low: int, high: int, bits: int) -> None:
    assert bits_for(low, high) == bits
