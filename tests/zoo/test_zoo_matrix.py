"""Quantizers by layers by exporters: exported, and exact, or refused as ``explain`` says."""

from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import brevitas.quant as stock
import pytest
import torch
from torch import nn
from whole_way import exported, images

from divqat_brevitas import quant
from divqat_brevitas.errors import DivQATError
from divqat_brevitas.quant import validate_quantizer
from divqat_brevitas.quant.explain import explain
from divqat_brevitas.quant.proxy import DivQATWeightQuantProxy
from fpga_flow import export_qonnx

SHAPE = (2, 5, 5)


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
)
LAYERS: dict[str, Any] = {
    "convolution": lambda q: qnn.QuantConv2d(2, 4, 3, padding=1, stride=2, weight_quant=q),
    "depthwise": lambda q: qnn.QuantConv2d(2, 2, 3, groups=2, bias=False, weight_quant=q),
    "pointwise": lambda q: qnn.QuantConv2d(2, 4, 1, bias=False, weight_quant=q),
    "linear": lambda q: nn.Sequential(nn.Flatten(), qnn.QuantLinear(50, 6, True, weight_quant=q)),
}


def network(
    layer: str = "convolution",
    weight: Any = quant.Int4WeightPerChannelFloatDivQAT,
    act: Any = quant.Uint4ActPerTensorFloatDivQAT,
) -> nn.Module:
    """Pixels, one layer of the kind, an activation, and a head; its ranges are set."""
    kind = qnn.QuantReLU if act.__name__.startswith("Uint") else qnn.QuantIdentity
    features = nn.Sequential(
        qnn.QuantIdentity(act_quant=quant.Uint8ImageDivQAT),
        LAYERS[layer](weight),
        kind(act_quant=act),
        nn.Flatten(),
    )
    width = features(torch.rand(1, *SHAPE)).shape[1]
    head = qnn.QuantLinear(width, 5, True, weight_quant=quant.Int4WeightPerTensorFloatDivQAT)
    model = nn.Sequential(*features, head).train()
    model(torch.from_numpy(images(SHAPE)))
    return model.eval()


def check(model: nn.Module, path: Path, exporter: str) -> None:
    assert explain(model).problems == ()
    report = exported(model, images(SHAPE, 4), path, exporter)
    assert len(report.parity.layers) == 5  # image, layer, activation, head, output


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda q: q.__name__)
def test_weights_by_layers(weight: Any, layer: str, tmp_path: Path) -> None:
    check(network(layer, weight), tmp_path / "m.onnx", "torchscript")


@pytest.mark.parametrize("act", ACTIVATIONS, ids=lambda q: q.__name__)
def test_activations(act: Any, tmp_path: Path) -> None:
    check(network(act=act), tmp_path / "m.onnx", "torchscript")


# The dynamo exporter takes seconds: each layer once, and quantizers with handlers of their own.
DYNAMO = (
    ("convolution", quant.Int4WeightPerChannelFloatDivQAT),
    ("depthwise", stock.Int4WeightPerTensorFloatDecoupled),
    ("pointwise", stock.SignedBinaryWeightPerTensorConst),
    ("linear", ExportedFloorWeights),
)


@pytest.mark.parametrize(("layer", "weight"), DYNAMO, ids=lambda v: getattr(v, "__name__", v))
def test_weights_with_dynamo(layer: str, weight: Any, tmp_path: Path) -> None:
    check(network(layer, weight), tmp_path / "m.onnx", "dynamo")


@pytest.mark.parametrize(
    "act", [quant.Int4ActPerTensorFloatDivQAT, stock.SignedBinaryActPerTensorConst]
)
def test_activations_with_dynamo(act: Any, tmp_path: Path) -> None:
    check(network(act=act), tmp_path / "m.onnx", "dynamo")


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
        (stock.ShiftedUint8WeightPerTensorFloat, "dynamo"),
        (FloorWeights, "dynamo"),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_refused_by_explain_and_by_the_export(
    quantizer: Any, exporter: Any, tmp_path: Path
) -> None:
    explained, refused = REFUSED[quantizer]
    is_weight = "Weight" in quantizer.__name__
    model = network(weight=quantizer) if is_weight else network(act=quantizer)
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
