"""ONNX files that were made to do harm are refused before anything acts on them."""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from proto_mutation import mutate
from qonnx_graphs import Graph
from targets import qonnx

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import load_model, lower
from fpga_flow.untrusted import UnsafeModelError
from fpga_flow.untrusted.onnx_file import check_model, read_onnx

pytestmark = pytest.mark.usefixtures("bounded_memory")
SHAPE = (2, 6, 6)


def valid() -> ModelProto:
    g = Graph(SHAPE)
    x = g.quant(g.batch_norm(g.conv(g.image(), 2, 4), 4, 40.0), 0.2, 4)
    return g.classifier(x).model


def refused(path: Path, said: str, model: ModelProto | bytes) -> None:
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(InputError, match=said) as caught:
        lower(path)
    assert len(str(caught.value)) < 5_000


def test_a_valid_model_passes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(valid().SerializeToString())
    assert read_onnx(path) == valid()
    assert lower(path).input_shape == SHAPE


def external(location: str, **more: str) -> ModelProto:
    model = valid()
    tensor = next(t for t in model.graph.initializer if len(t.raw_data) > 100)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return model


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret", "sub/../../secret", "link", "hard", "linked/secret"]
)
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    for secret in (tmp_path / "secret", outside / "secret"):
        secret.write_bytes(b"s" * 10_000)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(outside)
    os.link(tmp_path / "secret", folder / "hard")
    refused(folder / "m.onnx", "missing or damaged", external(location, length="288"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"length": "-1"}, "missing or damaged|holds"),
        ({"offset": "-5", "length": "10"}, "missing or damaged"),
        ({"offset": str(2**62), "length": "288"}, "missing or damaged"),
        ({"length": "many"}, "missing or damaged"),
        ({"length": str(2**40)}, "too large"),
        ({"length": "8"}, "declares the shape"),
    ],
)
def test_external_data_is_as_long_as_declared(
    tmp_path: Path, more: dict[str, str], said: str
) -> None:
    (tmp_path / "w").write_bytes(bytes(300))
    refused(tmp_path / "m.onnx", said, external("w", **more))


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "w").open("wb") as file:
        file.truncate(2**40)
    refused(tmp_path / "m.onnx", "too large", external("w"))


def test_a_device_or_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(InputError, match="no regular file"):
            read_onnx(path)


def declared(model: ModelProto) -> None:
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([2**40, 2**20])


def negative(model: ModelProto) -> None:
    model.graph.initializer[0].dims.extend([-4, 1])


def input_shape(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


def cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def nothing_makes_it(model: ModelProto) -> None:
    model.graph.node[-1].input[0] = "nowhere"


def made_twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def same_names(model: ModelProto) -> None:
    model.graph.initializer[1].name = model.graph.initializer[0].name


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[-1].op_type = "RunShell"


def unknown_domain(model: ModelProto) -> None:
    model.graph.node[0].domain = "divqat_evil_module"


def long_name(model: ModelProto) -> None:
    model.graph.node[0].name = "x" * 10_000


def repeated_attribute(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.attribute)
    node.attribute.add().CopyFrom(node.attribute[0])


def window(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.attribute.add(name="pads", ints=[2**40] * 4, type=onnx.AttributeProto.INTS)


def stride(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    node.attribute.add(name="strides", ints=[0, 0], type=onnx.AttributeProto.INTS)


def function(model: ModelProto) -> None:
    model.functions.add(name="f", domain="d")


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add()


def text(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = TensorProto.STRING


def nodes(model: ModelProto) -> None:
    for at in range(6000):
        model.graph.node.add(op_type="Identity", input=["image"], output=[f"i{at}"])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (declared, "declares the shape"),
        (negative, "negative|declares"),
        (input_shape, "elements an image"),
        (cycle, "a cycle"),
        (nothing_makes_it, "no node before it makes"),
        (made_twice, "is made twice"),
        (same_names, "have the same name"),
        (unknown_operator, "'RunShell'|RunShell node .*unknown operator"),
        (unknown_domain, "unknown operator domain 'divqat_evil_module'"),
        (long_name, "longer than 1000 characters"),
        (repeated_attribute, "stands in it twice"),
        (window, "pads = "),
        (stride, "strides = "),
        (function, "functions"),
        (sparse, "sparse tensors"),
        (text, "element type 8"),
        (nodes, "nodes, more than"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_harm_in_the_graph(tmp_path: Path, harm: Callable[[ModelProto], None], said: str) -> None:
    model = valid()
    harm(model)
    refused(tmp_path / "m.onnx", said, model)


def test_a_domain_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "divqat_evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = valid()
    unknown_domain(model)
    refused(tmp_path / "m.onnx", "unknown operator domain", model)
    assert "divqat_evil_module" not in sys.modules


@pytest.mark.parametrize("key", ["tensor_layout", "tensor_sparsity", "finn_datatype", "other"])
@pytest.mark.parametrize(
    "value",
    [
        "__import__('pathlib').Path({mark!r}).touch()",
        "[open({mark!r}, 'w')]",
        "exit",
        "[" * 250,
        "-" * 250 + "1",
        "INT" + "9" * 12,
        "{{[]: 1}}",
    ],
)
def test_an_annotation_is_not_evaluated(tmp_path: Path, key: str, value: str) -> None:
    mark = tmp_path / "evaluated"
    model = valid()
    annotation = model.graph.quantization_annotation.add()
    annotation.tensor_name = model.graph.input[0].name
    annotation.quant_parameter_tensor_names.add(key=key, value=value.format(mark=str(mark)))
    refused(tmp_path / "m.onnx", "is annotated", model)
    assert not mark.exists()


def test_annotations_of_qonnx_pass_and_foreign_metadata_goes(tmp_path: Path) -> None:
    model = valid()
    for tensor, key, value in (
        (model.graph.input[0].name, "tensor_layout", "['N', 'C', 'H', 'W']"),
        (model.graph.output[0].name, "finn_datatype", "FIXED<8,4>"),
        (model.graph.node[0].output[0], "tensor_sparsity", "{'dw': {'kernel_shape': [3, 3]}}"),
    ):
        annotation = model.graph.quantization_annotation.add()
        annotation.tensor_name = tensor
        annotation.quant_parameter_tensor_names.add(key=key, value=value)
    (tmp_path / "plain.onnx").write_bytes(model.SerializeToString())
    model.metadata_props.add(key="vivado_stitch_ifnames", value="exit()")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert read_onnx(tmp_path / "m.onnx") == read_onnx(tmp_path / "plain.onnx")
    assert lower(tmp_path / "m.onnx").input_shape == SHAPE


@pytest.mark.parametrize("depth", [1, 5, 1000, 50_000])
def test_nested_subgraphs(tmp_path: Path, depth: int) -> None:
    def field(number: int, content: bytes) -> bytes:
        length, size = len(content), b""
        while length >= 128:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    # Built from the inside out with a cut of the growing prefix: linear in the depth.
    inner = b""
    for _ in range(min(depth, 2000)):
        inner = field(1, field(4, b"If") + field(5, field(6, inner)))
    model = valid().SerializeToString() + field(7, inner)
    refused(tmp_path / "m.onnx", "subgraph|nested", model)


def test_two_bytes_a_message_do_not_fill_memory(tmp_path: Path) -> None:
    nodes = b"\x0a\x00" * 2_500_000  # 2.5 million empty nodes
    size = len(nodes)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    refused(tmp_path / "m.onnx", "more than 400000 entries", b"\x3a" + length + nodes)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    content = valid().SerializeToString()
    refused(tmp_path / "m.onnx", "truncated", content[: int(share * len(content))])


def grows(op: str) -> ModelProto:
    """A kilobyte of constants that would be computed into gigabytes."""
    g = Graph((4,))
    x = g.linear(g.quant(g.image(), 0.5, 3), 4, 3)
    if op == "ConstantOfShape":
        big = g.node(op, g.constant([2**20, 2**20], np.int64))
    elif op == "Range":
        big = g.node(op, g.constant(0.0), g.constant(1e12), g.constant(1.0))
    elif op == "Concat":
        big = g.constant(np.ones(1000))
        for _ in range(25):
            big = g.node(op, big, big, axis=0)
    elif op == "Add" or op == "MatMul":
        big = g.node(op, g.constant(np.ones((20_000, 1))), g.constant(np.ones((1, 20_000))))
    elif op == "Shape":
        shape = g.node("Mul", g.node(op, "image"), g.constant([2**40, 1], np.int64))
        big = g.node("ConstantOfShape", shape)
    else:
        big = g.node(op, g.constant(np.ones(1000)), g.constant([2**22], np.int64))
    total = g.node("ReduceMax", big, keepdims=0)
    return g.model(g.node("Add", x, total)).model


@pytest.mark.parametrize(
    "op", ["ConstantOfShape", "Range", "Concat", "Add", "MatMul", "Shape", "Tile"]
)
def test_constants_that_grow(tmp_path: Path, op: str) -> None:
    refused(tmp_path / "m.onnx", "elements|cannot be told", grows(op))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of", ["weights", "scale", "bias"])
def test_numbers_that_are_none(tmp_path: Path, of: str, value: float) -> None:
    model = valid()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    quant = next(node for node in model.graph.node if node.output[0] == conv.input[1])
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    name = {"weights": quant.input[0], "scale": quant.input[1], "bias": norm.input[2]}[of]
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    refused(tmp_path / "m.onnx", "NaN|infinit|positive number", model)


def test_a_quantizer_of_many_features_is_refused(tmp_path: Path) -> None:
    g = Graph((2**19,))
    x = g.quant(g.node("Relu", g.image()), 0.5, 8, signed=False)
    model = g.model(g.node("Mul", x, g.constant(1.0)))
    refused(tmp_path / "m.onnx", "thresholds", model.model)


def test_a_convolution_may_leave_its_kernel_shape_to_the_weights(tmp_path: Path) -> None:
    model = valid()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    at = [attribute.name for attribute in conv.attribute].index("kernel_shape")
    del conv.attribute[at]
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert lower(path).input_shape == SHAPE


def test_a_convolution_of_a_vector_does_not_end_the_process(tmp_path: Path) -> None:
    """Found by fuzzing: ONNX's shape inference aborted."""
    model = valid()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    del conv.attribute[[attribute.name for attribute in conv.attribute].index("kernel_shape")]
    del model.graph.value_info[:]
    del model.graph.input[0].type.tensor_type.shape.dim[2:]
    refused(tmp_path / "m.onnx", "inconsistent|inferred|reads activations", model)


def test_names_that_are_no_text() -> None:
    model = valid()
    content = model.SerializeToString().replace(b"image", b"im\xffge")
    broken = ModelProto.FromString(content)
    with pytest.raises(UnsafeModelError, match="no text"):
        check_model(broken, "m.onnx")


def test_scopes_of_a_node_are_read_as_data(tmp_path: Path) -> None:
    model, sources = valid(), []
    for scopes in ("-" * 200_000 + "1", "[" * 100_000, "__import__('os').abort()", "['a', 'b']"):
        del model.graph.node[0].metadata_props[:]
        model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        sources.append(lower(path).input.source)
    assert sources == ["Quant_0", "Quant_0", "os", "a/b"]  # the node's name where there is none


def test_mutated_models_never_crash() -> None:
    """What the fuzzer does, in miniature: engines that disagree would be an AssertionError."""
    content = valid().SerializeToString()
    parsed = 0
    for seed in range(40):
        rng = random.Random(seed)
        model = ModelProto.FromString(content)
        mutate(model, rng, rng.randint(1, 4))
        qonnx(model.SerializeToString())
        parsed += 1
    assert parsed == 40


def test_a_model_with_no_shape_of_its_output_is_still_read(tmp_path: Path) -> None:
    model = valid()
    model.graph.output[0].type.Clear()
    model.graph.output[0].CopyFrom(helper.make_empty_tensor_value_info(model.graph.output[0].name))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert load_model(path).graph.node
