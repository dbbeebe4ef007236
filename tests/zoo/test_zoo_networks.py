"""Networks that users have: swapped, trained a little, exported, equal in integers, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brevitas.graph.calibrate import calibration_mode
from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize, quantize
from brevitas_examples.bnn_pynq.models import model_with_cfg
from brevitas_examples.imagenet_classification.models.mobilenetv1 import MobileNet
from float_networks import MobileNetV2, ResNet, exported, images, mobilenet_v1, trained
from torch import nn

from divqat_brevitas import quant, swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.models.resnet import BasicBlock
from fpga_flow import export_qonnx, load_engine
from fpga_flow.lowering import clean, settle

SMALL = (3, 16, 16)
slow = pytest.mark.slow


def slowly(*values: Any) -> Any:
    return pytest.param(*values, marks=slow)


@pytest.mark.parametrize(
    ("name", "layers", "swapped"),
    [
        ("TFC_1W2A", 9, False),
        ("TFC_1W1A", 9, True),
        *(slowly(name, 9, False) for name in ("TFC_1W1A", "TFC_2W2A", "LFC_1W1A")),
        *(slowly(name, 19, False) for name in ("CNV_1W1A", "CNV_1W2A", "CNV_2W2A")),
        # Swapped they all have these quantizers.
        slowly("CNV_1W1A", 19, True),
    ],
)
def test_bnn_pynq(name: str, layers: int, swapped: bool, tmp_path: Path) -> None:
    original, _ = model_with_cfg(name, pretrained=False)
    x = images((3, 32, 32) if name.startswith("CNV") else (1, 28, 28))
    model = original
    if swapped:
        model = swap_quantizers(
            original, quant.Int2WeightPerChannelFloatDivQAT, quant.Uint2ActPerTensorFloatDivQAT
        )
    report = exported(trained(model, original, x), x, tmp_path / "m.onnx", "torchscript")
    assert len(report.parity.layers) == layers
    if not swapped:
        assert report.network is not None
        weights, activations = int(name[-4]), int(name[-2])
        assert {row.weight_bits for row in report.network.describe()} == {None, weights}
        assert report.network.layers[1].bits == activations


def by_graph(make: Callable[[], nn.Module]) -> nn.Module:
    """Brevitas' post-training quantization on torch.fx, calibrated."""
    return calibrated(make, lambda net: quantize(preprocess_for_quantize(net)))


def by_layer(make: Callable[[], nn.Module]) -> nn.Module:
    """Brevitas' layer-wise quantization, calibrated."""
    return calibrated(make, layerwise_quantize)


def calibrated(make: Callable[[], nn.Module], quantizing: Callable[[Any], nn.Module]) -> nn.Module:
    net, x = make(), torch.from_numpy(images(SMALL))
    net.train()(x)
    model = quantizing(net.eval())
    with torch.no_grad(), calibration_mode(model):
        model(x)
    return model.eval()


@pytest.mark.parametrize(
    ("make", "prepare", "layers"),
    [
        slowly(mobilenet_v1, lambda make: make(), 13),
        slowly(mobilenet_v1, by_layer, 18),
        (mobilenet_v1, by_graph, 15),
        slowly(ResNet, by_graph, 19),
        slowly(MobileNetV2, by_graph, 27),
    ],
)
@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=slow)])
def test_float_networks_and_brevitas_graph(
    make: Any, prepare: Any, layers: int, exporter: Any, tmp_path: Path
) -> None:
    original = prepare(make)
    model = swap_quantizers(original)
    x = images(SMALL)
    report = exported(trained(model, original, x), x, tmp_path / "m.onnx", exporter)
    assert len(report.parity.layers) >= layers  # pools and sums, too


@slow  # two exports
def test_stock_graph_quantization_is_exact_too(tmp_path: Path) -> None:
    """Int32 biases, batch norm merged; thresholds behind the pooling lay on integers."""
    x = images(SMALL)
    report = exported(by_graph(mobilenet_v1), x, tmp_path / "m.onnx", "torchscript")
    assert report.rescaled
    kept = export_qonnx(by_graph(mobilenet_v1), tmp_path / "k.onnx", x, settle_thresholds=False)
    assert kept.rescaled == ()


def test_shared_scales_stay_shared() -> None:
    """graph.quantize gives the branches of a sum one scale; so does the swap."""
    model = swap_quantizers(by_graph(ResNet)).train()
    model(torch.from_numpy(images(SMALL)))
    # A sum of QuantTensors refuses different scales, so running it is half of the test.
    scalings = [
        id(m.fused_activation_quant_proxy.tensor_quant.scaling_impl)
        for m in model.eval().modules()
        if getattr(m, "fused_activation_quant_proxy", None) is not None
    ]
    assert len(set(scalings)) < len(scalings)


@pytest.mark.parametrize(
    ("make", "prepare", "said"),
    [
        (ResNet, lambda make: make(), "/layer1/Add.*branches have scales .* one quantizer"),
        slowly(MobileNetV2, lambda make: make(), "Add.*branches have scales .* one quantizer"),
        slowly(ResNet, by_layer, "/layer1/Add.*branches have scales .* one quantizer"),
    ],
)
def test_what_cannot_become_integers_is_named(
    make: Any, prepare: Any, said: str, tmp_path: Path
) -> None:
    original = prepare(make)
    x = images(SMALL)
    report = export_qonnx(trained(swap_quantizers(original), original, x), tmp_path / "m.onnx", x)
    assert report.not_lowered is not None
    assert report.parity.mismatches == 0
    with pytest.raises(InputError, match=said):
        load_engine(tmp_path / "m.onnx", engine="integer").predict(x)


@slow  # ten layers
def test_a_truncating_average_becomes_integers(tmp_path: Path) -> None:
    """Brevitas' MobileNetV1 of imagenet_classification, small."""
    original = MobileNet([[4], [6], [8]], False, 4, 4, avg_pool_kernel_size=4, num_classes=10)
    x = images(SMALL)
    report = export_qonnx(trained(swap_quantizers(original), original, x), tmp_path / "m.onnx", x)
    assert report.not_lowered is None
    engine = load_engine(tmp_path / "m.onnx", engine="integer")
    assert np.array_equal(engine.predict(x), report.network.predict(x))


@slow
def test_resnet_18_of_bnn_pynq_becomes_integers(tmp_path: Path) -> None:
    original, _ = model_with_cfg("RESNET18_4W4A", pretrained=False)
    x = images((3, 32, 32), 2)
    model = swap_quantizers(original)
    assert model.conv1.input_quant.is_quant_enabled  # it had no quantizer of the image
    report = export_qonnx(trained(model, original, x, steps=1), tmp_path / "m.onnx", x)
    assert report.not_lowered is None
    assert report.parity.mismatches == 0


@slow  # trains and exports a network
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_equal_biases_of_an_untrained_network_are_told_apart(exporter: Any, tmp_path: Path) -> None:
    """All biases are 0 and of one size: each threshold is moved by the bias before it."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1), nn.Flatten(), nn.Linear(144, 10)),
    )
    model = swap_quantizers(net)
    x = images((3, 6, 6))
    model.train()(torch.from_numpy(x))
    report = exported(model.eval(), x, tmp_path / "m.onnx", exporter)
    moved = {record.parameter for record in report.settled if record.values is not None}
    assert len(moved) > 1
    biases = [m.bias for m in report.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(bool(bias.any()) for bias in biases) == len(moved)
    # What the torch model was given is what the file holds: nothing is left to be moved.
    again = settle(clean(tmp_path / "m.onnx"))
    assert all(record.values is None for record in again)
    assert np.isfinite([record.margin for record in again]).all()
