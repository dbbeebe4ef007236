"""Every FINN step against the integers of the lowered network."""

import subprocess
import sys

import finn_networks as networks
import numpy as np
import pytest
from finn_networks import finn_worker

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, compare_steps, compile_finn, run_step
from fpga_flow.lowering import lower

pytestmark = pytest.mark.finn
NETWORKS = {
    "cnn 4 bit": (lambda: networks.cnn(4, 14, channels=3), (3, 14, 14), 2),
    "bipolar": (lambda: networks.binary_cnn(8), (1, 8, 8), 2),
    "on ties": (lambda: networks.tied_cnn(8), (1, 8, 8), 2),
}


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


def test_two_bit_steps_and_several_jobs(cnn_build, cnn_onnx):
    rows = compare_steps(cnn_build, cnn_onnx, networks.images((1, 8, 8), 300))
    assert [row.mismatches for row in rows] == [0] * len(cnn_build.steps)
    assert {row.inputs for row in rows} == {300}


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


def test_a_build_of_another_file(cnn_build, mlp_onnx):
    with pytest.raises(InputError, match="is of another file"):
        compare_steps(cnn_build, mlp_onnx, networks.images((1, 8, 8), 2))


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
