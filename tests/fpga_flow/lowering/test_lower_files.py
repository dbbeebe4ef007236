"""Files good and bad, cleaning, and the network that comes of a file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx_graphs import Graph, images

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import Network, clean, load_model, lower, source_of
from fpga_flow.lowering.ir import Conv, bits_for

SHAPE = (2, 6, 6)


def model() -> ModelWrapper:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 2, 4), 4, 40.0), 0.2, 4)
    return g.classifier(x)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    model().save(str(path))
    return path


def test_file_and_model_give_the_same_network(path: Path) -> None:
    batch = images(SHAPE)
    results = [lower(one).predict(batch) for one in (path, str(path), load_model(path))]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_the_callers_model_is_not_changed() -> None:
    mine = model()
    before = mine.model.SerializeToString()
    lower(mine)
    assert mine.model.SerializeToString() == before


def test_cleaning_twice_changes_nothing(tmp_path: Path) -> None:
    once = clean(model())
    once.save(str(tmp_path / "clean.onnx"))
    twice = clean(tmp_path / "clean.onnx")
    assert [(n.name, list(n.output), source_of(n)) for n in once.graph.node] == [
        (n.name, list(n.output), source_of(n)) for n in twice.graph.node
    ]


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_any_exported_batch_size(batch: int) -> None:
    mine = model()
    mine.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    network = lower(mine)
    assert network.input_shape == SHAPE
    assert np.array_equal(network.predict(images(SHAPE)), lower(model()).predict(images(SHAPE)))


def test_dynamic_batch_size() -> None:
    mine = model()
    mine.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert lower(mine).input_shape == SHAPE


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.onnx: cannot be read \(No such file"):
        lower(tmp_path / "nowhere.onnx")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        lower(tmp_path)


@pytest.mark.parametrize("content", [b"hello, this is no ONNX file", b"\x00" * 50, b""])
def test_other_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"text\.onnx: no ONNX"):
        lower(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"model\.onnx"):
        lower(path)


def test_any_damaged_byte_is_no_traceback(path: Path) -> None:
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        at = int(rng.integers(len(content)))
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            lower(path)
        except InputError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_external_data(path: Path, damage: str) -> None:
    proto = onnx.load(path)
    folder = path.parent / "split"
    folder.mkdir()
    onnx.save(
        proto,
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    batch = images(SHAPE)
    assert np.array_equal(lower(folder / "model.onnx").predict(batch), lower(path).predict(batch))
    weights = folder / "weights.bin"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(InputError, match=r"another file that is missing or damaged"):
        lower(folder / "model.onnx")


def plain(op: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node(op, ["x"] if op == "Relu" else ["x", "s", "z"], ["y"])]
    constants = []
    if op != "Relu":
        constants = [
            helper.make_tensor("s", onnx.TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("z", onnx.TensorProto.INT8, [], [0]),
        ]
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, [1, 3])], [value("y", 1, [1, 3])], constants
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("op", "message"), [("Relu", "a float ONNX model"), ("QuantizeLinear", "QCDQ")]
)
def test_onnx_that_is_no_qonnx(tmp_path: Path, op: str, message: str) -> None:
    onnx.save(plain(op), tmp_path / "plain.onnx")
    with pytest.raises(InputError, match=f"no QONNX: no Quant node, .*{message}.*Export it with"):
        lower(tmp_path / "plain.onnx")


def test_two_inputs() -> None:
    mine = model()
    mine.graph.input.append(helper.make_tensor_value_info("other", 1, [1, 3]))
    with pytest.raises(InputError, match="2 inputs and 1 outputs"):
        lower(mine)


def test_inconsistent_shapes() -> None:
    g = Graph((6,))
    with pytest.raises(InputError, match=r"inconsistent|inferred"):
        lower(g.model(g.linear(g.image(), 7, 5)))


MAPS = (2, 8, 8)


@pytest.fixture(scope="module")
def network() -> Network:
    g = Graph(MAPS)
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
    n = network.run(images(MAPS))[conv.output]
    values = (n * conv.scale + conv.bias).astype(np.float32)
    assert np.array_equal(network.to_integers("Conv_1_out0", values), n)


def test_a_tensor_behind_a_folded_relu_has_no_integers(network: Network) -> None:
    assert network.layer("MaxPool_1").tensor is None
    with pytest.raises(InputError, match="mirrored tensor"):
        network.to_integers("MaxPool_1_out0", np.zeros((1, 6, 2, 2)))


def test_guaranteed_range_is_reached_and_not_passed() -> None:
    g = Graph(MAPS)
    lowered = lower(g.classifier(g.quant(g.conv(g.image(bits=3, scale=1 / 7), 2, 4), 0.5, 4)))
    conv = lowered.layer("Conv_0")
    assert isinstance(conv, Conv)
    for channel in range(4):
        for wanted, sign in ((conv.high, 1), (conv.low, -1)):
            image = np.zeros((1, *MAPS), dtype=np.float32)
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
        network.run(np.zeros((1, *MAPS)))
