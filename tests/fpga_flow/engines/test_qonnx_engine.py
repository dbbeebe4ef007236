"""QONNX execution in batches is QONNX execution image by image."""

from pathlib import Path

import numpy as np
import pytest
from engine_models import random_images, small_network
from qonnx.core.onnx_exec import execute_onnx

from divqat_brevitas.errors import InputError
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.lowering import clean


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_network(tmp_path_factory.mktemp("qonnx") / "model.onnx")


def test_batches_equal_single_images(path: Path) -> None:
    images = random_images(7)
    model = clean(path)
    name, output = model.graph.input[0].name, model.graph.output[0].name
    single = [execute_onnx(model, {name: image[None]})[output] for image in images]
    logits = QonnxEngine(path, batch=4).predict(images)
    # another batch size sums in another order: float32 noise
    assert np.abs(logits - np.concatenate(single)).max() < 1e-6


def test_tensors_by_name(path: Path) -> None:
    engine = QonnxEngine(path, batch=4)
    images = random_images(6)
    values = engine.tensors(images, ["global_in", "Conv_0_out0", "Conv_0_out0"])
    assert np.array_equal(values["global_in"], images)
    assert values["Conv_0_out0"].shape == (6, 6, 8, 8)
    integers = engine.network.to_integers("Conv_0_out0", values["Conv_0_out0"])
    assert np.array_equal(integers, engine.accumulators(images)["Conv_0"])
    with pytest.raises(InputError, match="unknown tensor 'Conv_0_out': did you mean 'Conv_0_out0'"):
        engine.tensors(images, ["Conv_0_out"])
