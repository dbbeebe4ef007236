"""Export: both exporters, one plain file, and a gate that fails when it must."""

import copy
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from brevitas.inject.enum import FloatToIntImplType
from brevitas.quant.binary import SignedBinaryActPerTensorConst
from brevitas.quant.scaled_int import Int8WeightPerChannelFloat
from brevitas.quant.ternary import SignedTernaryActPerTensorConst
from torch import nn

from divqat_brevitas import quant, swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.models import build_model, quantize
from fpga_flow.export import ParityError, export_qonnx
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import lower

EXPORTERS = ("torchscript", "dynamo")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def images(shape: tuple[int, ...], count: int = 24) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return pixels.astype(np.float32) / np.float32(255)


def warmed(model: nn.Module, x: np.ndarray) -> nn.Module:
    """With batch-norm statistics and activation ranges of its own."""
    model.train()
    for _ in range(3):
        model(torch.from_numpy(x))
    return model.eval()


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize(
    ("exporter", "bits", "power_of_two"),
    [
        ("torchscript", "w2a2", False),
        ("torchscript", "w4a4", True),
        ("torchscript", "w8a8", False),
        ("dynamo", "w4a4", False),
        ("dynamo", "w2a2", True),
    ],
)
def test_our_models_pass_the_gate(
    exporter: Any, bits: str, power_of_two: bool, tmp_path: Path
) -> None:
    x = images((1, 8, 8))
    model = warmed(
        quantize(build_model("digits-cnn", (1, 8, 8), 10), bits, power_of_two=power_of_two), x
    )
    report = export_qonnx(model, tmp_path / "m.onnx", x, exporter=exporter)
    assert report.parity.mismatches == 0
    assert report.parity.inputs > len(x)  # ties and extremes came along
    assert len(report.parity.layers) == 7  # input, 2 convs, 2 activations, linear, output
    assert report.network is not None
    engine = IntegerEngine(tmp_path / "m.onnx")
    with torch.no_grad():
        logits = report.model(torch.from_numpy(x)).numpy()
    assert np.array_equal(engine.predict(x).argmax(1), logits.argmax(1))
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]  # one file
    proto = onnx.load(tmp_path / "m.onnx")
    assert {n.domain for n in proto.graph.node} <= {"", "qonnx.custom_op.general"}
    assert {n.op_type for n in proto.graph.node if n.domain} == {"Quant"}


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_file_holds_the_layers_integers(exporter: Any, tmp_path: Path) -> None:
    """Also for a quantizer that does not round to nearest, where stock Brevitas lies."""

    class Floor(quant.Int4WeightPerChannelFloatDivQAT):  # type: ignore[misc]
        float_to_int_impl_type = FloatToIntImplType.FLOOR

    x = images((1, 8, 8))
    model = warmed(swap_quantizers(build_model("digits-cnn", (1, 8, 8), 10), weight=Floor), x)
    export_qonnx(model, tmp_path / "m.onnx", x, exporter=exporter)
    layer = lower(tmp_path / "m.onnx").layer("Conv_0")
    expected = model[0].quant_weight().int(float_datatype=False).numpy()
    assert np.array_equal(layer.weight, expected)


class _StockFloor(Int8WeightPerChannelFloat):  # type: ignore[misc]
    bit_width = 4
    float_to_int_impl_type = FloatToIntImplType.FLOOR


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_gate_catches_a_lying_export(exporter: Any, tmp_path: Path) -> None:
    x = images((1, 8, 8))
    model = swap_quantizers(build_model("digits-cnn", (1, 8, 8), 10))
    model[3].weight_quant = _StockFloor.proxy_class(model[3], _StockFloor)
    target = tmp_path / "m.onnx"
    target.write_text("mine")
    with pytest.raises(ParityError, match=r"first in layer .*3") as caught:
        export_qonnx(warmed(model, x), target, x, exporter=exporter)
    assert caught.value.exit_code == 1
    assert caught.value.result.mismatches > 0
    assert target.read_text() == "mine"  # nothing of the user's is lost
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_brevitas_own_export_function_is_right_too(tmp_path: Path) -> None:
    from brevitas.export import export_qonnx as brevitas_export

    x = images((1, 8, 8))
    model = warmed(quantize(build_model("digits-cnn", (1, 8, 8), 10), "w3a3"), x)
    brevitas_export(model, torch.from_numpy(x[:1]), str(tmp_path / "b.onnx"), dynamo=False)
    expected = model[3].quant_weight().int(float_datatype=False).numpy()
    assert np.array_equal(lower(tmp_path / "b.onnx").layer("Conv_1").weight, expected)


def test_the_users_model_is_left_alone(tmp_path: Path) -> None:
    x = images((1, 8, 8))
    model = warmed(quantize(build_model("digits-cnn", (1, 8, 8), 10), "w4a4"), x)
    model.train()
    before = copy.deepcopy(model.state_dict())
    report = export_qonnx(model, tmp_path / "m.onnx", x)
    assert model.training
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert min(r.margin for r in report.settled) > 1 / 70  # 1/64, stored in float32
    moved = [k for k, v in report.model.state_dict().items() if not torch.equal(v, before[k])]
    assert all(k.endswith("bias") for k in moved)


def test_without_settling_the_weights_are_exactly_the_models(tmp_path: Path) -> None:
    x = images((1, 8, 8))
    model = warmed(quantize(build_model("digits-cnn", (1, 8, 8), 10), "w4a4"), x)
    report = export_qonnx(model, tmp_path / "m.onnx", x, settle_thresholds=False)
    state = report.model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert report.settled == ()
    assert report.flips == 0


def test_ties_inside_the_network_agree(tmp_path: Path) -> None:
    """Power-of-two scales without batch norm: accumulators sit exactly on half steps."""
    act = quant.Uint4ActPerTensorFixedPointDivQAT
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=act),
        qnn.QuantConv2d(
            1, 4, 3, bias=False, weight_quant=quant.Int4WeightPerTensorFixedPointDivQAT
        ),
        qnn.QuantReLU(act_quant=act),
        nn.Flatten(),
        qnn.QuantLinear(
            4 * 36, 5, bias=False, weight_quant=quant.Int4WeightPerTensorFixedPointDivQAT
        ),
    )
    x = images((1, 8, 8))
    report = export_qonnx(warmed(model, x), tmp_path / "m.onnx", x)
    assert report.network is not None
    threshold = report.network.layer("Quant_3")
    assert report.parity.mismatches == 0
    accumulators = IntegerEngine(tmp_path / "m.onnx").accumulators(x)["Conv_0"]
    ratio = report.network.layer("Conv_0").scale.max() / threshold.scale.max()
    halves = np.abs(accumulators * ratio % 1 - 0.5) == 0
    assert halves.sum() > 10  # the test is about something


class Residual(nn.Module):
    """Branches, a quantizer used twice, a depthwise convolution, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        weight, act = quant.Int4WeightPerChannelFloatDivQAT, quant.Uint4ActPerTensorFloatDivQAT
        self.image = qnn.QuantIdentity(act_quant=quant.Uint8ImageDivQAT)
        self.first = qnn.QuantConv2d(1, 8, 3, padding=1, bias=False, weight_quant=weight)
        self.norm1, self.relu1 = nn.BatchNorm2d(8), qnn.QuantReLU(act_quant=act)
        self.depthwise = qnn.QuantConv2d(8, 8, 3, padding=1, groups=8, weight_quant=weight)
        self.norm2, self.relu2 = nn.BatchNorm2d(8), qnn.QuantReLU(act_quant=act)
        self.join = qnn.QuantIdentity(act_quant=quant.Int4ActPerTensorFloatDivQAT)
        self.pool, self.pooled = nn.AdaptiveAvgPool2d(1), qnn.QuantIdentity(act_quant=act)
        self.head = qnn.QuantLinear(8, 5, bias=True, weight_quant=weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.norm1(self.first(self.image(x))))
        # The long branch is quantized first, whatever order a graph is sorted in.
        x = self.relu2(self.join(self.norm2(self.depthwise(x))) + self.join(x))
        return self.head(self.pooled(self.pool(x)).flatten(1))


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_branches_are_compared_layer_by_layer(exporter: Any, tmp_path: Path) -> None:
    x = images((1, 8, 8))
    report = export_qonnx(warmed(Residual(), x), tmp_path / "m.onnx", x, exporter=exporter)
    assert report.parity.mismatches == 0
    # 6 quantizers, 3 weighted layers, a sum, a pool, output
    assert len(report.parity.layers) == 12
    engine = IntegerEngine(tmp_path / "m.onnx")
    with torch.no_grad():
        logits = report.model(torch.from_numpy(x)).numpy()
    assert np.array_equal(engine.predict(x).argmax(1), logits.argmax(1))


def test_shared_weight_quantizer_is_refused(tmp_path: Path) -> None:
    first = qnn.QuantLinear(4, 4, False, weight_quant=quant.Int4WeightPerTensorFloatDivQAT)
    second = qnn.QuantLinear(4, 4, False, weight_quant=first.weight_quant)
    model = nn.Sequential(
        nn.Flatten(), qnn.QuantIdentity(act_quant=quant.Uint8ImageDivQAT), first, second
    )
    with pytest.raises(InputError, match="shared by 2 layers"):
        export_qonnx(model, tmp_path / "m.onnx", images((1, 2, 2)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((0, 1, 8, 8), np.float32), "at least one image"),
        (np.zeros(8, np.float32), "N, C, H, W"),
        (np.full((2, 1, 8, 8), np.nan, np.float32), "NaN|finite"),
        (np.full((2, 1, 8, 8), 200, np.float32), r"\[0, 1\]"),
        (np.zeros((2, 3, 8, 8), np.float32), "cannot be exported"),
    ],
)
def test_bad_images_are_refused(bad: np.ndarray, message: str, tmp_path: Path) -> None:
    model = quantize(build_model("digits-cnn", (1, 8, 8), 10), "w4a4")
    with pytest.raises(InputError, match=message):
        export_qonnx(model, tmp_path / "m.onnx", bad)
    assert list(tmp_path.iterdir()) == []


def test_unknown_exporter_is_refused(tmp_path: Path) -> None:
    model = quantize(build_model("digits-cnn", (1, 8, 8), 10), "w4a4")
    with pytest.raises(InputError, match="torchscript"):
        export_qonnx(model, tmp_path / "m.onnx", images((1, 8, 8)), exporter="torchscrip")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("act", "bias"),
    [
        (SignedBinaryActPerTensorConst, True),
        (SignedTernaryActPerTensorConst, True),
        (SignedTernaryActPerTensorConst, False),
    ],
)
def test_constant_scales_are_exported(act: Any, bias: bool, tmp_path: Path) -> None:
    x = images((1, 8, 8), 8)
    report = export_qonnx(constant_scale(act, bias, x), tmp_path / "m.onnx", x)
    assert report.parity.mismatches == 0
    assert report.rescaled == ()


def test_a_threshold_that_nothing_can_move_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """A binary activation of sums without a bias: a sum of 0 is its threshold itself."""
    x = images((1, 8, 8), 8)
    model = constant_scale(SignedBinaryActPerTensorConst, False, x)
    parity = export_qonnx(model, tmp_path / "m.onnx", x).parity
    # It hangs on this machine's float arithmetic whether any sum is decided by noise.
    assert parity.faults == 0
    assert (parity.by_noise > 0) == bool(parity.noise)


def constant_scale(act: Any, bias: bool, x: np.ndarray) -> nn.Module:
    weights = {"weight_quant": quant.Int4WeightPerChannelFloatDivQAT}
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=quant.Uint8ImageDivQAT),
        qnn.QuantConv2d(1, 8, 3, bias=bias, **weights),
        qnn.QuantIdentity(act_quant=act),
        nn.Flatten(),
        qnn.QuantLinear(8 * 36, 4, **weights),
    )
    model(torch.from_numpy(x))
    return model.eval()
