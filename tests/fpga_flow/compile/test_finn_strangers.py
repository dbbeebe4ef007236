"""A FINN build's folder of somebody else: its models are data, or refused."""

import json
import re
import shutil
import sys

import finn_networks as networks
import numpy as np
import onnx
import pytest

from divqat_brevitas.errors import InputError
from fpga_flow.compile import FinnBuild
from fpga_flow.engines import load_engine
from fpga_flow.lowering import lower
from fpga_flow.lowering.input_step import InputStep

pytestmark = pytest.mark.finn
LAST = "step_hw_codegen"
SHAPE = (1, 8, 8)


@pytest.fixture
def theirs(cnn_build, tmp_path):
    """A copy of a build, to be spoilt."""
    return shutil.copytree(cnn_build.folder, tmp_path / "theirs")


def change(folder, step, harm):
    path = folder / "models" / f"{step}.onnx"
    model = onnx.load(path)
    harm(model)
    onnx.save(model, path)


def answer(folder):
    engine = load_engine(folder, "finn")
    try:
        return engine.predict(networks.images(SHAPE, 2))
    finally:
        engine.close()


def test_a_moved_build_still_runs(theirs, cnn_onnx):
    images = networks.images(SHAPE, 2)
    assert np.array_equal(answer(theirs), lower(cnn_onnx).predict(images))


def module(model):
    model.graph.node[0].domain = "divqat_evil_module"


def partition(model):
    node = model.graph.node[0]
    node.op_type, node.domain = "StreamingDataflowPartition", "finn.custom_op.fpgadataflow"


def generic(model):
    node = model.graph.node[0]
    node.op_type, node.domain = "GenericPartition", "qonnx.custom_op.general"


def program(model):
    node = model.graph.node[0]
    node.attribute.append(onnx.helper.make_attribute("exec_mode", "cppsim"))
    node.attribute.append(onnx.helper.make_attribute("executable_path", "program"))


def evaluated(model):
    entries = model.graph.quantization_annotation[0].quant_parameter_tensor_names
    entries.add(key="tensor_sparsity", value="exit(7)")


def datatype(model):
    node = next(n for n in model.graph.node if n.op_type.startswith("MVAU"))
    attribute = next(a for a in node.attribute if a.name == "inputDataType")
    attribute.s = b"INT999999999999"


def traversal(model):
    model.graph.node[0].name = "../../outside"


def verilog(model):
    node = next(n for n in model.graph.node if n.op_type.startswith("MVAU"))
    node.attribute.append(onnx.helper.make_attribute("gen_top", 'x; initial $system("true");'))


def outside(model):
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../build.json")


def unknown_shape(model):
    del model.graph.value_info[:]


def large(model):
    model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 2**40


@pytest.mark.parametrize(
    ("step", "harm", "said"),
    [
        (LAST, module, "no such operator in 'divqat_evil_module'"),
        (LAST, partition, "StreamingDataflowPartition"),
        (LAST, generic, "GenericPartition"),
        (LAST, program, "'exec_mode'"),
        (LAST, evaluated, "is annotated"),
        (LAST, datatype, "'inputDataType'"),
        (LAST, traversal, "none that FINN gives"),
        (LAST, verilog, "'gen_top'"),
        (LAST, outside, "another file"),
        (LAST, unknown_shape, "is not told"),
        (LAST, large, "elements an image"),
        ("dataflow_parent", module, "no such operator in 'divqat_evil_module'"),
        ("dataflow_parent", generic, "GenericPartition"),
        ("dataflow_parent", program, "'exec_mode'"),
    ],
)
def test_harm_in_a_model_is_refused(theirs, step, harm, said, monkeypatch):
    (theirs / "divqat_evil_module.py").write_text("import os\nos._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(theirs))
    change(theirs, step, harm)
    with pytest.raises(InputError, match=re.escape(said)):
        answer(theirs)


def test_hardware_is_generated_of_known_layers_alone(theirs, monkeypatch):
    (theirs / "divqat_evil_module.py").write_text("import os\nos._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(theirs))
    for path in (theirs / "models").glob("*.onnx"):
        change(theirs, path.stem, module)
    with pytest.raises(InputError, match="no such operator in 'divqat_evil_module'"):
        load_engine(theirs, "rtl")
    assert "divqat_evil_module" not in sys.modules


def step(**changes):
    return InputStep.plain(1 / 255, 8, SHAPE).record() | changes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seconds", {"../../../outside": 1.0}),
        ("seconds", []),
        ("input_shape", [1, 2**20, 2**20]),
        ("input_shape", [1, -8, -8]),
        ("input_shape", ["1", 8, 8]),
        ("input_step", {}),
        ("input_step", step(bits=10**12)),
        ("input_step", step(bits="4")),
        ("input_step", step(scale=float("nan"))),
        ("input_step", step(scale=[[1.0]] * 3, shape=[2**20, 2**20])),
        ("input_step", step(rounding="exit")),
        ("input_step", step(steps=[{"op": "Loop", "shape": [8], "constant": 1}])),
        ("output_scale", ["a"]),
        ("output_bias", [float("inf")]),
    ],
)
def test_a_record_that_no_build_writes_is_refused(theirs, key, value):
    record = json.loads((theirs / "build.json").read_text())
    (theirs / "build.json").write_text(json.dumps({**record, key: value}))
    with pytest.raises(InputError, match="is not of this version"):
        FinnBuild.load(theirs)
