"""Our own build steps, one by one, and inside FINN's stock builder."""

import json
import subprocess
import sys

import finn_networks as networks
import numpy as np
import pytest
from brevitas.nn import QuantIdentity
from onnx import TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.custom_op.general.quant import quant
from qonnx.util.basic import qonnx_make_model
from torch import nn

from fpga_flow.compile import steps
from fpga_flow.lowering import clean


def run(model, value):
    return execute_onnx(model, {model.graph.input[0].name: value})[model.graph.output[0].name]


def graph(nodes, shape, constants, output_shape=None):
    """A model of ``nodes`` from tensor x to tensor y."""
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "test",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, output_shape or shape)],
    )
    model = ModelWrapper(qonnx_make_model(made))
    for name, value in constants.items():
        model.set_initializer(name, np.asarray(value, dtype=np.float32))
    return model


def test_input_takes_pixels(cnn_onnx):
    model = steps.step_integer_input(ModelWrapper(str(cnn_onnx)), None)
    first = model.graph.input[0].name
    assert model.get_tensor_datatype(first) == DataType["UINT8"]
    assert [node.op_type for node in model.find_consumers(first)] == ["Mul"]
    assert float(model.get_metadata_prop(steps.INPUT_SCALE)) == np.float32(1 / 255)
    codes = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) * 4
    expected = run(clean(cnn_onnx), codes / np.float32(255))
    # Multiplying by float32(1/255) differs from dividing by 255 in the last bit.
    assert np.allclose(run(model, codes), expected, atol=1e-6)


def test_signed_input_of_fewer_bits(tmp_path):
    network = networks.mlp(4, 8)
    network[0] = QuantIdentity(bit_width=6, return_quant_tensor=True)
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    model = steps.step_integer_input(ModelWrapper(str(path)), None)
    assert model.get_tensor_datatype(model.graph.input[0].name) == DataType["INT6"]


def test_flattened_input_takes_pixels_too(tmp_path):
    network = nn.Sequential(nn.Flatten(), networks.pixels(), *networks.mlp(4, 8)[2:])
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    model = steps.step_integer_input(ModelWrapper(str(path)), None)
    (flatten,) = model.find_consumers(model.graph.input[0].name)
    assert model.get_tensor_datatype(model.graph.input[0].name) == DataType["UINT8"]
    assert model.get_tensor_datatype(flatten.output[0]) == DataType["UINT8"]


def test_a_graph_that_begins_otherwise_is_left_alone(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Hardtanh(0, 1), networks.mlp(4, 8))
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    model = steps.step_integer_input(ModelWrapper(str(path)), None)
    assert model.get_metadata_prop(steps.INPUT_SCALE) is None
    assert model.get_tensor_datatype(model.graph.input[0].name) == DataType["FLOAT32"]
    assert len(model.get_nodes_by_op_type("Quant")) == 4


@pytest.mark.parametrize("lowest", [0, -8, -7], ids=["unsigned", "signed", "narrow"])
@pytest.mark.parametrize("scale", [0.25, 0.3])
def test_thresholds_round_half_to_even(lowest, scale):
    highest = 15 if lowest == 0 else 7
    codes = np.arange(lowest + 1, highest + 1)
    thresholds = (np.float64(np.float32(scale)) * (codes - 0.5))[None].astype(np.float32)
    nodes = [
        helper.make_node(
            "MultiThreshold", ["x", "t"], ["c"], domain="qonnx.custom_op.general", out_dtype="INT5"
        ),
        helper.make_node("Add", ["c", "lowest"], ["y"]),
    ]
    model = graph(nodes, [1, 64], {"t": thresholds, "lowest": lowest})
    model.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 64]))
    ties = np.arange(-32, 32, dtype=np.float32)[None] / 2 * np.float32(scale)
    expected = quant(
        ties,
        np.float32(scale),
        np.float32(0),
        np.float32(4),
        signed=lowest < 0,
        narrow=lowest == -7,
        rounding_mode="ROUND",
    ) / np.float32(scale)
    stock = run(model, ties)
    if scale == 0.25:  # elsewhere the products are no exact ties
        assert not np.array_equal(stock, expected)
        assert np.array_equal(run(steps.step_ties_to_even(model, None), ties), expected)
    away = ties + np.float32(0.01)
    assert np.array_equal(run(steps.step_ties_to_even(model, None), away), run(model, away))


def test_bipolar_thresholds_are_left_alone():
    node = helper.make_node(
        "MultiThreshold",
        ["x", "t"],
        ["y"],
        domain="qonnx.custom_op.general",
        out_dtype="BIPOLAR",
        out_scale=2.0,
        out_bias=-1.0,
    )
    model = steps.step_ties_to_even(graph([node], [1, 3], {"t": [[0.0]]}), None)
    value = np.array([[-0.5, 0.0, 0.5]], dtype=np.float32)
    assert np.array_equal(run(model, value), [[-1, 1, 1]])


def threshold_on_integers(thresholds, entries, counted="INT24"):
    node = helper.make_node(
        "MultiThreshold", ["x", "t"], ["y"], domain="qonnx.custom_op.general", out_dtype="UINT2"
    )
    model = graph([node], [1, 2], {"t": thresholds})
    model.set_tensor_datatype("x", DataType[counted])
    model.set_metadata_prop(steps.THRESHOLDS, json.dumps(entries))
    return steps.step_exact_thresholds(model, None)


EXACT = {
    "thresholds": [[-500000, 3, 900001], [-40, 0, 41]],
    "first": [-500000, -100],
    "last": [900000, 100],
}


def test_exact_thresholds_replace_those_of_float32_noise():
    floats = [[-6e5, 2.0, 1e6], [-40.7, -0.01, 40.0]]
    model = threshold_on_integers(floats, [EXACT])
    assert np.array_equal(model.get_initializer("t"), EXACT["thresholds"])
    assert model.get_metadata_prop(steps.THRESHOLDS) is None


@pytest.mark.parametrize(
    ("floats", "entries"),
    [
        ([[-6e5, 2.0, 1e6], [-60.0, 0.0, 40.0]], [EXACT]),
        ([[-6e5, 2.0, 1e6], [-40.0, 0.0, 40.0]], [EXACT, EXACT]),
        ([[-6e5, 2.0], [-40.0, 0.0]], [EXACT]),
    ],
    ids=["another meaning", "another count", "another shape"],
)
def test_thresholds_of_another_network_are_kept(floats, entries):
    model = threshold_on_integers(floats, entries)
    assert np.array_equal(model.get_initializer("t"), np.asarray(floats, dtype=np.float32))


def test_thresholds_of_popcounts_are_kept_but_not_below_zero():
    floats = [[-6e5, 2.0, 1e6], [-40.7, -0.01, 40.0]]
    model = threshold_on_integers(floats, [EXACT], counted="UINT24")
    assert np.array_equal(model.get_initializer("t"), [[0, 2, 1e6], [0, 0, 40]])


def test_output_ends_in_accumulators():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Mul", ["a", "scale"], ["b"]),
        helper.make_node("Add", ["b", "bias"], ["y"]),
    ]
    constants = {"w": [[1, -2], [3, 4]], "scale": 0.5, "bias": [0.25, -1.0]}
    model = graph(nodes, [1, 2], constants)
    for name in "ab":
        model.set_tensor_shape(name, [1, 2])
    model.set_tensor_datatype("a", DataType["INT8"])
    value = np.array([[2.0, -3.0]], dtype=np.float32)
    logits = run(model, value)
    model = steps.step_integer_output(model, None)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert model.get_tensor_datatype("y") == DataType["INT8"]
    affine = json.loads(model.get_metadata_prop(steps.OUTPUT_AFFINE))
    accumulators = run(model, value)
    assert np.array_equal(accumulators, [[-7, -16]])
    assert np.array_equal(accumulators * affine["scale"] + affine["bias"], logits)


def test_float_output_is_left_alone():
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    model = steps.step_integer_output(graph([node], [1, 2], {"scale": 0.5}), None)
    assert [node.op_type for node in model.graph.node] == ["Mul"]
    assert model.get_metadata_prop(steps.OUTPUT_AFFINE) is None


STOCK = """
import sys
from pathlib import Path
from fpga_flow.compile.vivado_free import import_finn
import_finn()
import finn.builder.build_dataflow as builder
from finn.builder.build_dataflow_config import DataflowBuildConfig
answer = builder.build_dataflow_cfg(
    sys.argv[1], DataflowBuildConfig.construct_from(Path("build.yaml"))
)
sys.exit(-answer)
"""
YAML = """
output_dir: {out}
synth_clk_period_ns: 10.0
board: Pynq-Z1
target_fps: 1000
standalone_thresholds: true
enable_build_pdb_debug: false
generate_outputs: [estimate_reports]
inject_steps_before:
  step_qonnx_to_finn: [fpga_flow.compile.steps.step_integer_input]
inject_steps_after:
  step_qonnx_to_finn: [fpga_flow.compile.steps.step_ties_to_even]
  step_streamline:
    - fpga_flow.compile.steps.step_exact_thresholds
    - fpga_flow.compile.steps.step_integer_output
  step_create_dataflow_partition: [fpga_flow.compile.steps.step_prefer_rtl]
steps: [step_qonnx_to_finn, step_tidy_up, step_streamline, step_convert_to_hw,
  step_minimize_bit_width_initial, step_create_dataflow_partition, step_specialize_layers,
  step_target_fps_parallelization, step_minimize_bit_width, step_generate_estimate_reports]
"""


@pytest.mark.finn
def test_a_yaml_of_stock_finn_can_name_the_steps(cnn_onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FINN_BUILD_DIR", str(tmp_path / "finn"))
    (tmp_path / "finn").mkdir()
    (tmp_path / "build.yaml").write_text(YAML.format(out=tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(cnn_onnx)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = tmp_path / "out" / "intermediate_models" / "step_minimize_bit_width.onnx"
    model = ModelWrapper(str(last))
    assert model.get_tensor_datatype(model.graph.input[0].name) == DataType["UINT8"]
    assert model.get_tensor_datatype(model.graph.output[0].name).is_integer()
    assert len(model.get_nodes_by_op_type("MVAU_rtl")) == 3
