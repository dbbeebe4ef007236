"""The FINN engine answers as the integers do, from a build or straight from a QONNX file."""

import warnings

import numpy as np
import pytest
import torch
from brevitas.export import export_qonnx
from brevitas.nn import QuantIdentity, QuantLinear, QuantReLU
from brevitas.quant import Uint8ActPerTensorFloat
from finn_networks import finn_worker
from torch import nn

from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.engines import load_engine
from fpga_flow.engines.finn import FinnEngine
from fpga_flow.lowering import lower

pytestmark = pytest.mark.finn


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    torch.manual_seed(0)
    pixels = {"bit_width": 8, "scaling_impl_type": "const", "scaling_init": 1.0}
    network = nn.Sequential(
        QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True, **pixels),
        nn.Flatten(),
        QuantLinear(36, 16, bias=False, weight_bit_width=4),
        nn.BatchNorm1d(16),
        QuantReLU(bit_width=4, return_quant_tensor=True),
        QuantLinear(16, 5, bias=True, weight_bit_width=4),
    )
    batch = torch.rand(32, 1, 6, 6)
    network(batch)
    network.eval()
    path = tmp_path_factory.mktemp("engine") / "mlp.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_qonnx(network, args=batch[:1], export_path=str(path), dynamo=False)
    return path


@pytest.fixture(scope="module")
def images():
    codes = np.random.default_rng(0).integers(0, 256, (70, 1, 6, 6))
    return codes.astype(np.float32) / 255


@pytest.mark.slow  # simulates generated hardware
def test_same_integers_and_labels_as_the_network(onnx, images, tmp_path):
    engine = FinnEngine(
        compile_finn(onnx, tmp_path / "build", CompileSettings(), finn_worker()).folder
    )
    network = lower(onnx)
    integers = network.run(images)[network.output.tensor]
    (layer, accumulators), *more = engine.accumulators(images).items()
    assert more == []
    assert network.layer(layer).accumulates
    assert accumulators.dtype == np.int64
    assert np.array_equal(accumulators, integers)
    logits = engine.predict(images)
    assert (logits.dtype, logits.shape) == (np.float32, (70, 5))
    assert np.array_equal(logits.argmax(axis=1), network.predict(images).argmax(axis=1))
    # FINN multiplies the scales in float32, the lowering in float64.
    assert np.allclose(logits, network.predict(images), rtol=1e-5, atol=1e-6)
    assert engine.predict(images[:0]).shape == (0, 5)
    engine.close()
    assert np.array_equal(engine.predict(images[:2]), logits[:2])  # starts again
    engine.close()


@pytest.mark.slow  # simulates generated hardware
def test_straight_from_a_qonnx_file(onnx, images):
    engine = load_engine(onnx, "finn")
    assert engine.name == "finn"
    assert np.array_equal(
        engine.predict(images).argmax(axis=1), lower(onnx).predict(images).argmax(axis=1)
    )
    with pytest.raises(InputError, match=r"shape \(70, 36\)"):
        engine.predict(images.reshape(70, 36))
    with pytest.raises(InputError, match="uint8"):
        engine.predict(np.zeros((1, 1, 6, 6), dtype=np.uint8))
    engine.close()


def test_a_folder_without_a_build(tmp_path):
    with pytest.raises(InputError, match="no finished FINN build"):
        FinnEngine(tmp_path)
