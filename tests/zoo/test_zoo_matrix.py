"""Quantizers by layers by exporters: exported, and exact, or refused as ``explain`` says."""

from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import brevitas.quant as stock
import pytest
import torch
from brevitas.nn.quant_layer import QuantNonLinearActLayer as QuantNLAL
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer as QuantWBIOL
from float_networks import exported, images
from torch import nn

from divqat_brevitas import quant
from divqat_brevitas.errors import DivQATError
from divqat_brevitas.quant import validate_quantizer
from divqat_brevitas.quant.explain import explain
from divqat_brevitas.quant.proxy import DivQATWeightQuantProxy
from fpga_flow import export_qonnx

SHAPE = (2, 5, 5)
WEIGHT = quant.Int4WeightPerChannelFloatDivQAT
slow = pytest.mark.slow


class FloorWeights(stock.Int8WeightPerTensorFloat):  # type: ignore[misc]
    """A user's own, which rounds down; Brevitas would export it as if it rounded to nearest."""

    bit_width = 4
    float_to_int_impl_type = "floor"


class ExportedFloorWeights(FloorWeights):
    """The same with the remedy that ``validate_quantizer`` names."""

    proxy_class = DivQATWeightQuantProxy


WEIGHTS = (
    quant.Int2WeightPerTensorFloatDivQAT,
    quant.Int3WeightPerChannelFixedPointDivQAT,
    quant.Int4WeightPerChannelFloatDivQAT,
    quant.Int8WeightPerTensorFixedPointDivQAT,
    stock.Int8WeightPerTensorFloat,
    stock.Int8WeightPerChannelFloat,
    stock.Int8WeightPerTensorFixedPoint,
    stock.Int4WeightPerTensorFloatDecoupled,
    stock.Int8WeightNormL2PerChannelFixedPoint,
    stock.Int8WeightPerChannelFloatMSE,
    stock.SignedBinaryWeightPerTensorConst,
    stock.SignedTernaryWeightPerTensorConst,
    quant.SignedBinaryWeightPerTensorFloatDivQAT,
    quant.SignedBinaryWeightPerChannelFixedPointDivQAT,
    ExportedFloorWeights,
)
ACTIVATIONS = (
    quant.Uint2ActPerTensorFloatDivQAT,
    quant.Uint4ActPerTensorFixedPointDivQAT,
    quant.Uint8ActPerTensorFloatDivQAT,
    quant.Int4ActPerTensorFloatDivQAT,
    quant.Int3ActPerTensorFixedPointDivQAT,
    stock.Uint8ActPerTensorFloat,
    stock.Int8ActPerTensorFloat,
    stock.Uint8ActPerTensorFixedPoint,
    stock.Uint8ActPerTensorFloatMSE,
    stock.Int8ActPerTensorFloatBatchQuant2d,
    stock.SignedBinaryActPerTensorConst,
    stock.SignedTernaryActPerTensorConst,
    quant.SignedBinaryActPerTensorConstDivQAT,
)
LAYERS = (
    lambda q: qnn.QuantConv2d(2, 4, 3, padding=1, stride=2, weight_quant=q),
    lambda q: qnn.QuantConv2d(4, 4, 3, padding=1, groups=4, bias=False, weight_quant=q),
    lambda q: qnn.QuantConv2d(4, 4, 1, bias=False, weight_quant=q),
    lambda q: nn.Sequential(nn.Flatten(), qnn.QuantLinear(36, 6, True, weight_quant=q)),
)


def network(*weights: Any, act: Any = quant.Uint4ActPerTensorFloatDivQAT) -> nn.Module:
    """Pixels, a layer with an activation for each of ``weights``, and a head; calibrated."""
    kind = qnn.QuantReLU if act.__name__.startswith("Uint") else qnn.QuantIdentity
    features = nn.Sequential(qnn.QuantIdentity(act_quant=quant.Uint8ImageDivQAT))
    for layer, weight in zip(LAYERS, weights, strict=False):
        features.append(layer(weight)).append(kind(act_quant=act))
    features.append(nn.Flatten())
    width = features(torch.rand(1, *SHAPE)).shape[1]
    head = qnn.QuantLinear(width, 5, True, weight_quant=quant.Int4WeightPerTensorFloatDivQAT)
    model = nn.Sequential(*features, head).train()
    model(torch.from_numpy(images(SHAPE)))
    return model.eval()


def check(model: nn.Module, path: Path, exporter: str) -> None:
    assert explain(model).problems == ()
    report = exported(model, images(SHAPE, 4), path, exporter)
    layers = sum(isinstance(m, QuantWBIOL | QuantNLAL) for m in model.modules())
    assert len(report.parity.layers) == layers + 1  # and the output


@slow  # a second each
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda q: q.__name__)
def test_weights(weight: Any, tmp_path: Path) -> None:
    check(network(*[weight] * len(LAYERS)), tmp_path / "m.onnx", "torchscript")


@slow
@pytest.mark.parametrize("act", ACTIVATIONS, ids=lambda q: q.__name__)
def test_activations(act: Any, tmp_path: Path) -> None:
    check(network(WEIGHT, act=act), tmp_path / "m.onnx", "torchscript")


def test_different_quantizers_in_one_network(tmp_path: Path) -> None:
    weights = (WEIGHT, *WEIGHTS[4:6], ExportedFloorWeights)
    check(network(*weights), tmp_path / "m.onnx", "torchscript")


@slow  # the dynamo exporter takes seconds: quantizers with handlers of their own
@pytest.mark.parametrize(
    ("weights", "act"),
    [
        (
            (
                WEIGHT,
                stock.Int4WeightPerTensorFloatDecoupled,
                quant.SignedBinaryWeightPerChannelFloatDivQAT,
                ExportedFloorWeights,
            ),
            quant.Int4ActPerTensorFloatDivQAT,
        ),
        # Behind layers without a bias a sum of 0 would be the threshold itself.
        ((WEIGHT,), quant.SignedBinaryActPerTensorConstDivQAT),
    ],
)
def test_dynamo(weights: tuple[Any, ...], act: Any, tmp_path: Path) -> None:
    check(network(*weights, act=act), tmp_path / "m.onnx", "dynamo")


# What explain says of the quantizer, and the export (or the lowering) of the file.
REFUSED = {
    stock.ShiftedUint8WeightPerTensorFloat: ("zero-point is not 0", "zero-point is not 0"),
    stock.ShiftedUint8ActPerTensorFloat: ("zero-point is not 0", "zero-point is not 0"),
    stock.Fp8e4m3WeightPerTensorFloat: ("minifloats", "cannot be exported"),
    stock.MXInt8Weight: ("QONNX has no export of its proxy Groupwise", "cannot be exported"),
    stock.Int8ActPerTensorFloat.let(bit_width=12): ("it has 12 bits", "bit width 12 is not"),
    stock.Int8WeightPerTensorFloat.let(bit_width=12): ("it has 12 bits", "weights have 12 bits"),
    FloorWeights: ("does not round to the nearest code", "export parity failed"),
}


@pytest.mark.parametrize(
    ("quantizer", "exporter"),
    [
        *((quantizer, "torchscript") for quantizer in REFUSED),
        *((q, "dynamo") for q in (stock.ShiftedUint8WeightPerTensorFloat, FloorWeights)),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_refused_by_explain_and_by_the_export(
    quantizer: Any, exporter: Any, tmp_path: Path
) -> None:
    explained, refused = REFUSED[quantizer]
    is_weight = "Weight" in quantizer.__name__
    model = network(quantizer) if is_weight else network(WEIGHT, act=quantizer)
    (problem,) = explain(model).problems
    assert explained in problem
    assert validate_quantizer(quantizer).lowers in problem
    try:
        said = export_qonnx(
            model, tmp_path / "m.onnx", images(SHAPE), exporter=exporter
        ).not_lowered
    except DivQATError as e:
        said = str(e)
        assert list(tmp_path.iterdir()) == []
    assert said is not None
    assert refused in said
