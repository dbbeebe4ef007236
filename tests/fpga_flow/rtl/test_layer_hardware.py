"""Kinds of layers in hardware, exact at each level: depthwise, grouped, averaged, one-bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import finn_networks as networks
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear
from brevitas.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from hardware_networks import Hardware
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.models import quantize
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.isolated_layers import measure_layers
from fpga_flow.engines.rtl import timing
from fpga_flow.rtl import DesignSettings, generate, generate_design
from fpga_flow.rtl.refusals import rtl_findings

pytestmark = [pytest.mark.finn, pytest.mark.slow]  # a FINN build, and Verilator
WEIGHTS: dict[str, Any] = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
Make = Callable[[Path], Hardware]


def depthwise(bits: str) -> Make:
    """A depthwise convolution, one of two groups, and an average of windows that overlap."""

    def block(inputs: int, outputs: int, kernel: int, **settings: Any) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **settings)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    def make(folder: Path) -> Hardware:
        network = nn.Sequential(
            *block(1, 8, 3),
            *block(8, 8, 3, padding=1, stride=2, groups=8),
            *block(8, 12, 1, groups=2),
            nn.AvgPool2d(2, stride=1),
            nn.Flatten(),
            nn.Linear(48, 5),
        )
        return Hardware.quantized(quantize(network, bits), folder, cycles=400)

    return make


def signs() -> nn.Module:
    return QuantIdentity(act_quant=SignedBinaryActPerTensorConst, return_quant_tensor=True)


def one_bit(network: nn.Module, folder: Path) -> Hardware:
    path = networks.export(network, (1, 8, 8), folder / "model.onnx")
    assert rtl_findings(path) == []
    return Hardware.of(path, networks.images((1, 8, 8), 24), cycles=200)


def cnv(folder: Path) -> Hardware:
    """Convolutions without padding, a pool, linear layers: as FINN's CNV, on 8x8 images."""
    network = nn.Sequential(
        networks.pixels(),
        *(QuantConv2d(1, 8, 3, **WEIGHTS), nn.BatchNorm2d(8), signs()),
        *(QuantConv2d(8, 12, 3, **WEIGHTS), nn.BatchNorm2d(12), signs(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(QuantLinear(48, 16, **WEIGHTS), nn.BatchNorm1d(16), signs()),
        QuantLinear(16, 10, **WEIGHTS),
    )
    return one_bit(network, folder)


def tfc(folder: Path) -> Hardware:
    """Linear layers, of a one-bit image."""
    network = nn.Sequential(
        nn.Flatten(),
        signs(),
        *(QuantLinear(64, 20, **WEIGHTS), nn.BatchNorm1d(20), signs()),
        *(QuantLinear(20, 16, **WEIGHTS), nn.BatchNorm1d(16), signs()),
        QuantLinear(16, 10, **WEIGHTS),
    )
    return one_bit(network, folder)


MAKE: dict[str, Make] = {
    "depthwise-w4a4": depthwise("w4a4"),
    "depthwise-w2a3": depthwise("w2a3"),
    "cnv": cnv,
    "tfc": tfc,
}


@pytest.fixture(scope="module", params=MAKE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def case(name: str, tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    torch.manual_seed(0)
    return MAKE[name](tmp_path_factory.mktemp(name))


def test_every_step_of_finn_has_the_networks_integers(case: Hardware) -> None:
    case.check_steps()


def test_hardware_gives_every_integer_under_stalls_in_the_predicted_cycles(
    name: str, case: Hardware
) -> None:
    operators = [node.op for node in case.design.nodes]
    assert operators.count("VVAU") == 2 * name.startswith("depthwise")
    free, _ = case.run_with_stalls()
    predicted = load_prediction(case.build)
    assert predicted is not None
    # Each layer is predicted exactly; the model has no waits for the few words between layers.
    measured, model = timing(free).interval_cycles, predicted.cycles_per_image
    assert model <= measured <= 1.02 * model <= 1.02 * case.cycles
    assert measure_layers(case.design).items() <= predicted.cycles.items()


def test_all_levels_are_compared_layer_by_layer(case: Hardware) -> None:
    case.check_levels()


@pytest.mark.parametrize("name", ["cnv", "tfc"], indirect=True)
def test_weights_and_activations_between_one_bit_layers_are_bits(case: Hardware) -> None:
    predicted = load_prediction(case.build)
    assert predicted is not None
    matrices = [shape for shape in predicted.shapes if shape.kind == "MVAU"]
    assert {shape.weight_bits for shape in matrices} == {1}
    units = [node for node in case.design.nodes if node.op == "MVAU"]
    # The first takes the image, the last one's sums are the network's: no thresholds follow.
    assert [node.input.bits for node in units[1:]] == [1] * (len(units) - 2) + [2]
    # Counts of equal bits are never negative.
    assert [node.output.signed for node in units] == [True] + [False] * (len(units) - 2) + [True]
    for shape, node in zip(matrices, units, strict=True):
        words = len((case.design.folder / f"{node.name}_weights.dat").read_text().split())
        assert node.pe is not None
        assert node.simd is not None
        assert words * node.pe * node.simd == shape.columns * shape.out_channels


@pytest.mark.parametrize(
    ("name", "message"),
    [("depthwise-w4a4", "depthwise convolution"), ("cnv", "one-bit activations")],
    indirect=["name"],
)
def test_finns_own_style_is_refused_before_anything_is_generated(
    message: str, case: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "_run_finn", None)  # would fail with another error
    with pytest.raises(InputError, match=f"no RTL for the layer .* {message}"):
        generate_design(case.build, tmp_path / "design", DesignSettings(style="finn"))
    assert not (tmp_path / "design").exists()
