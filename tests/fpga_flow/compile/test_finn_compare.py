"""Every FINN step against the integers of the lowered network."""

import json
import subprocess
import sys

import finn_networks as networks
import numpy as np
import pytest
from brevitas.nn import QuantIdentity, QuantLinear
from finn_networks import finn_worker
from onnx import TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from torch import nn

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, compare_steps, compile_finn, run_step, steps
from fpga_flow.compile.worker_execution import execute
from fpga_flow.lowering import lower
from fpga_flow.lowering.input_step import InputStep

NETWORKS = {
    "cnn 4 bit": (lambda: networks.cnn(4, 14, channels=3), (3, 14, 14), 2),
    "bipolar": (lambda: networks.binary_cnn(8), (1, 8, 8), 2),
    "on ties": (lambda: networks.tied_cnn(8), (1, 8, 8), 2),
}


@pytest.mark.finn
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_has_the_integers_of_the_network(name, tmp_path):
    make, shape, activations = NETWORKS[name]
    path = networks.export(make(), shape, tmp_path / "model.onnx")
    build = compile_finn(path, tmp_path / "build", CompileSettings(), finn_worker())
    rows = compare_steps(build, path, networks.images(shape, 120))
    assert [row.step for row in rows] == list(build.steps)
    assert [row.mismatches for row in rows] == [0] * len(rows)
    assert {row.layers for row in rows} == {activations + 1}
    assert {row.inputs for row in rows} == {120}
    assert {row.first_layer for row in rows} == {None}


@pytest.mark.finn
def test_two_bit_steps_and_several_jobs(cnn_build, cnn_onnx):
    rows = compare_steps(cnn_build, cnn_onnx, networks.images((1, 8, 8), 300))
    assert [row.mismatches for row in rows] == [0] * len(cnn_build.steps)
    assert {row.inputs for row in rows} == {300}


@pytest.mark.finn
def test_the_first_layer_that_differs_is_named(cnn_build, cnn_onnx):
    images = networks.images((1, 8, 8), 5)
    network = lower(cnn_onnx)
    reference = {name: values.copy() for name, values in network.run(images).items()}
    second = cnn_build.activations[1]
    reference[second][3] += 1
    reference[network.output.tensor][4, 0] -= 1
    rows = compare_steps(cnn_build, cnn_onnx, images, reference)
    assert {row.mismatches for row in rows} == {2}
    assert {row.first_layer for row in rows} == {network.layer(second).source}


@pytest.mark.finn
def test_a_build_of_another_file(cnn_build, mlp_onnx):
    with pytest.raises(InputError, match="is of another file"):
        compare_steps(cnn_build, mlp_onnx, networks.images((1, 8, 8), 2))


@pytest.mark.finn
def test_one_step(cnn_build, cnn_onnx):
    images = networks.images((1, 8, 8), 3)
    network = lower(cnn_onnx)
    integers = network.run(images)
    outputs = run_step(cnn_build, "step_streamline", images)
    assert np.array_equal(outputs.accumulators, integers[network.output.tensor])
    assert list(outputs.codes) == list(cnn_build.activations)
    for name, codes in outputs.codes.items():
        assert np.array_equal(codes, integers[name])
    # FINN multiplies the scales in float32.
    assert np.allclose(outputs.logits, network.predict(images), rtol=1e-5, atol=1e-6)


@pytest.mark.finn
def test_unknown_step_and_bad_images(cnn_build):
    with pytest.raises(InputError, match="did you mean 'step_streamline'"):
        run_step(cnn_build, "step_streamlin", networks.images((1, 8, 8), 2))
    with pytest.raises(InputError, match="shape"):
        run_step(cnn_build, "step_streamline", networks.images((1, 9, 9), 2))


BATCH_AGAINST_STOCK = """
import sys
from pathlib import Path
import numpy as np
from fpga_flow.compile.finn_import import import_finn
import_finn()
import finn.builder.build_dataflow
from finn.core.onnx_exec import execute_onnx
from finn.util.verification import despecialize_model
from qonnx.core.modelwrapper import ModelWrapper
from fpga_flow.compile.worker_execution import execute

codes = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8)).astype(np.float32)
for path in sorted(Path(sys.argv[1]).glob("step_*.onnx")):
    model = despecialize_model(ModelWrapper(str(path)))
    name, output = model.graph.input[0].name, model.graph.output[0].name
    shape = model.get_tensor_shape(name)
    # The accelerator's own input is NHWC.
    images = codes if shape == [1, 1, 8, 8] else codes.transpose(0, 2, 3, 1)
    stock = [execute_onnx(model, {name: image[None]}, True) for image in images]
    ours = execute(model, images)
    for node in model.graph.node:
        for tensor in node.output:
            if ours[tensor].shape[0] != len(codes):
                continue  # a weight
            theirs = np.concatenate([context[tensor] for context in stock])
            if model.get_tensor_datatype(tensor).is_integer():
                assert np.array_equal(theirs, ours[tensor]), (path.stem, tensor)
            else:  # ONNX Runtime's float sums depend on the batch
                assert np.allclose(theirs, ours[tensor], atol=1e-5), (path.stem, tensor)
print("checked")
"""


@pytest.mark.finn
def test_a_batch_is_executed_as_finn_executes_each_image(cnn_build, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FINN_BUILD_DIR", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BATCH_AGAINST_STOCK, cnn_build.folder / "models"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["checked"], done.stderr


# Our own build steps, one by one, and inside FINN's stock builder.
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
