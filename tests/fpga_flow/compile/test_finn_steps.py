"""Our own build steps, one by one, and inside FINN's stock builder."""

import json
import subprocess
import sys

import finn_networks as networks
import numpy as np
import pytest
from brevitas.nn import QuantIdentity, QuantLinear
from onnx import TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from torch import nn

from fpga_flow.compile import steps
from fpga_flow.compile.worker_execution import execute
from fpga_flow.lowering import lower
from fpga_flow.lowering.input_step import InputStep


def test_the_network_becomes_integers_and_the_host_gets_the_rest(cnn_onnx):
    source = ModelWrapper(str(cnn_onnx))
    source.set_metadata_prop("divqat.mine", "kept")
    model = steps.step_integer_network(source, None)
    first, last = model.graph.input[0].name, model.graph.output[0].name
    assert model.get_tensor_datatype(first) == DataType["UINT8"]
    assert model.get_tensor_datatype(last).is_integer()
    assert model.get_metadata_prop("divqat.mine") == "kept"
    network, images = lower(cnn_onnx), networks.images((1, 8, 8), 8)
    step = InputStep.from_record(json.loads(model.get_metadata_prop(steps.INPUT_STEP)))
    codes = step.codes(images)
    assert np.array_equal(codes, network.input.codes(images))
    sums = execute(model, codes.astype(np.float32))[last]
    assert np.array_equal(sums, network.run(images)[network.output.tensor])
    affine = json.loads(model.get_metadata_prop(steps.OUTPUT_AFFINE))
    logits = (sums * affine["scale"] + affine["bias"]).astype(np.float32)
    assert np.array_equal(logits, network.predict(images))


def test_signed_input_of_fewer_bits(tmp_path):
    network = networks.mlp(4, 8)
    network[0] = QuantIdentity(bit_width=6, return_quant_tensor=True)
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    model = steps.step_integer_network(ModelWrapper(str(path)), None)
    assert model.get_tensor_datatype(model.graph.input[0].name) == DataType["INT6"]


@pytest.mark.finn
def test_a_network_without_hardware_is_refused_in_finns_own_way(tmp_path):
    network = nn.Sequential(
        networks.pixels(),
        *networks.block(1, 2, 4),
        nn.LeakyReLU(),
        QuantIdentity(bit_width=4, return_quant_tensor=True),
        nn.Flatten(),
        QuantLinear(128, 3, bias=False, weight_bit_width=4),
    )
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    with pytest.raises(Exception, match=r"LeakyRelu node.*QuantReLU") as refusal:
        steps.step_integer_network(ModelWrapper(str(path)), None)
    assert type(refusal.value).__name__ == "FINNUserError"


OLDER = ("step_ties_to_even", "step_room_for_signs", "step_exact_thresholds", "step_integer_output")


@pytest.mark.parametrize("name", OLDER)
@pytest.mark.finn
def test_older_lists_of_steps_still_work(name, cnn_onnx):
    model = steps.step_integer_input(ModelWrapper(str(cnn_onnx)), None)
    before = model.model.SerializeToString(deterministic=True)
    step = getattr(steps, name)
    assert step(model, None).model.SerializeToString(deterministic=True) == before
    assert step.__name__ == name  # FINN's log names it
    with pytest.raises(Exception, match=rf"{name} has nothing .*step_integer_network before"):
        step(ModelWrapper(str(cnn_onnx)), None)


@pytest.mark.parametrize(
    ("declared", "weights", "becomes"),
    [("BINARY", [1, 1], "INT2"), ("BIPOLAR", [0, -1], "INT2"), ("BIPOLAR", [1, -1], "BIPOLAR")],
)
def test_weights_of_one_bit_become_two(declared, weights, becomes):
    value = helper.make_tensor_value_info
    node = helper.make_node(
        "MVAU_hls",
        ["x", "w"],
        ["y"],
        domain="finn.custom_op.fpgadataflow.hls",
        weightDataType=declared,
    )
    shapes = [("x", [1, 2]), ("y", [1, 1])]
    ends = [value(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    model = ModelWrapper(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])))
    model.set_initializer("w", np.array(weights, np.float32)[:, None])
    model.set_tensor_datatype("w", DataType[declared])
    changed = steps.step_two_bit_weights(model, None)
    assert changed.get_tensor_datatype("w") == DataType[becomes]


STOCK = """
import sys
from pathlib import Path
from fpga_flow.compile.finn_import import import_finn
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
  step_qonnx_to_finn: [fpga_flow.compile.steps.step_integer_network]
inject_steps_after:
  step_minimize_bit_width: [fpga_flow.compile.steps.step_two_bit_weights]
  step_create_dataflow_partition: [fpga_flow.compile.steps.step_prefer_rtl]
steps: [step_qonnx_to_finn, step_tidy_up, step_streamline, step_convert_to_hw,
  step_minimize_bit_width_initial, step_create_dataflow_partition, step_specialize_layers,
  step_target_fps_parallelization, step_minimize_bit_width, step_generate_estimate_reports]
"""


@pytest.mark.slow  # builds with FINN
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
