"""The integer engine: independent of its surroundings, in bounded memory."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_models import SHAPE, random_images, small_network
from torch import nn

from divqat_brevitas import swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.training import calibrate
from fpga_flow import export_qonnx
from fpga_flow.integer import engine as integer
from fpga_flow.integer import plan
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import Network, lower


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return lower(small_network(tmp_path_factory.mktemp("integer") / "model.onnx"))


@pytest.fixture(autouse=True)
def libraries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of libraries compute few images, too: ``test_native`` has compiled C++."""
    monkeypatch.setattr(integer, "compile_native", lambda *_: None)


@pytest.fixture
def restored_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_equals_the_reference(network: Network) -> None:
    images = random_images(100)
    engine = IntegerEngine(network, batch=32)
    reference = network.run(images)
    for layer in (network.input, *network.layers):
        assert np.array_equal(
            engine.integers(images, [layer.name])[layer.name], reference[layer.output]
        )
    assert np.array_equal(engine.predict(images), network.predict(images))


def test_sums_are_fused_away_only_where_nobody_asks_for_them(network: Network) -> None:
    images = random_images(40)
    engine = IntegerEngine(network, batch=16)
    reference = network.run(images)
    names = [layer.name for layer in network.layers]
    for keep in (["Conv_0"], ["Quant_3"], ["Conv_0", "Quant_3"], names):
        for name, found in engine.integers(images, keep).items():
            assert np.array_equal(found, reference[network.layer(name).output])


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_a_map_is_flattened_where_somebody_asks_for_it(network: Network) -> None:
    images, flat = random_images(5), network.layer("Flatten_0")
    asked = [network.output.tensor, flat.output]
    steps = plan.Planner(network, 5).plan(asked)
    assert [step.kernel.kind for step in steps[-2:]] == ["view", "int8"]
    found = IntegerEngine(network).integers(images, asked)
    reference = network.run(images)
    assert all(np.array_equal(found[name], reference[name]) for name in asked)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_thresholds_after_a_flattened_product_are_fused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = swap_quantizers(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 8),
            nn.ReLU(),
            nn.Linear(8, 5),
        )
    )
    images = random_images(40)
    calibrate(model, torch.from_numpy((images * 255).round()).byte())
    export_qonnx(model.eval(), tmp_path / "model.onnx", images[:8])
    engine = IntegerEngine(tmp_path / "model.onnx")
    (kind,) = [kind for kind in engine.kernels.values() if "through" in kind]
    assert kind.startswith("int8 with ")
    assert kind.endswith(", through Flatten_0")
    assert np.array_equal(engine.predict(images), engine.network.predict(images))
    expected = engine.network.run(images)
    for layer in engine.network.layers:
        found = engine.integers(images, [layer.name])[layer.name]
        assert np.array_equal(found, expected[layer.output])


def test_without_int8_kernels_it_computes_the_same(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(40)
    expected = network.run(images)
    monkeypatch.setattr(plan, "compile_int8", lambda *_: None)
    engine = IntegerEngine(network)
    assert engine.few == 0
    assert engine.kernels["Conv_0"] == "float32, place by place"  # of one channel
    assert engine.kernels["Quant_3"] == "float32 multiply-add"
    assert np.array_equal(engine.predict(images), network.predict(images))
    for layer in network.layers:
        found = engine.integers(images, [layer.name])[layer.name]
        assert np.array_equal(found, expected[layer.output])


def test_integers_by_layer_and_by_tensor_name(network: Network) -> None:
    engine = IntegerEngine(network)
    values = engine.integers(random_images(3), ["Conv_0", "Conv_0_out0", "Quant_0"])
    assert np.array_equal(values["Conv_0"], values["Conv_0_out0"])
    assert set(np.unique(values["Quant_0"])) <= set(range(256))
    with pytest.raises(InputError, match="unknown layer or tensor 'Conv_9'"):
        engine.integers(random_images(3), ["Conv_9"])


@pytest.mark.usefixtures("restored_precision")
def test_precision_settings_and_autocast_do_not_matter(network: Network) -> None:
    images = random_images(50)
    engine = IntegerEngine(network)
    expected = engine.predict(images)
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(engine.predict(images), expected)
        assert np.array_equal(IntegerEngine(network).predict(images), expected)
    assert torch.get_float32_matmul_precision() == "medium"


def test_torch_settings_stay_as_they_are(network: Network) -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.backends.mkldnn.matmul.fp32_precision,
            torch.backends.mkldnn.conv.fp32_precision,
            torch.random.get_rng_state().sum().item(),
        )

    before = state()
    IntegerEngine(network).predict(random_images(10))
    assert state() == before
    engine = IntegerEngine(network)
    with pytest.raises(InputError):
        engine.predict(np.zeros((1, *SHAPE)))
    assert state() == before


_MEMORY = """
import resource, sys
import numpy as np
from fpga_flow.integer.engine import IntegerEngine

def peak(count):
    engine.predict(np.broadcast_to(image, (count, *image.shape)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

engine = IntegerEngine(sys.argv[1], batch=64)
image = np.zeros(engine.network.input_shape, np.float32)
peak(64)
print(peak(128), peak(50_000))
"""


@pytest.mark.slow  # compares every kernel
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is counted in KiB on Linux")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    # a process of its own: the peak of this one is that of another test
    path = small_network(tmp_path / "model.onnx")
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MEMORY, str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    few, many = map(int, found.stdout.split())
    # Only logits grow: 20 bytes an image, kept twice while concatenated, and 200 bytes of an
    # array each batch. An image's sums alone would take 1.5 KiB, 75 MB together.
    assert many - few < 8 * 1024


@pytest.mark.parametrize("as_text", [False, True])
def test_loads_files(tmp_path: Path, as_text: bool) -> None:
    path = small_network(tmp_path / "model.onnx")
    engine = IntegerEngine(str(path) if as_text else path)
    assert engine.predict(random_images(2)).shape == (2, 5)
