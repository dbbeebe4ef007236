"""Files good and bad, and cleaning."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx_graphs import Graph, images

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import clean, load_model, lower, source_of

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


def test_layers_tell_their_name_in_the_file() -> None:
    mine = model()
    names = {node.name for node in mine.graph.node}
    layers = lower(mine).layers
    assert [layer.name for layer in layers] == ["Conv_0", "Quant_3", "Flatten_0", "MatMul_0"]
    assert {layer.source for layer in layers} < names


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
