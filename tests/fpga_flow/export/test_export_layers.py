"""Kinds of layers that users bring, from Brevitas to the integer engine by both exporters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from brevitas.quant.scaled_int import ShiftRoundSaturateTo8bit, TruncTo8bit
from test_export import EXPORTERS, images, warmed
from torch import Tensor, nn

from divqat_brevitas import quant, swap_quantizers
from divqat_brevitas.errors import InputError
from fpga_flow.engines.engine import load_engine
from fpga_flow.export import export_qonnx

IMAGE, SIGNAL = (2, 9, 7), (2, 19)
OURS = {"weight": quant.Int4WeightPerChannelFloatDivQAT, "act": quant.Uint4ActPerTensorFloatDivQAT}


def relu(bits: int = 4) -> nn.Module:
    return qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)


class Padded(nn.Module):
    """Every way to pad, and a max pool that reaches over the edge."""

    def __init__(self) -> None:
        super().__init__()
        self.image = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.same = qnn.QuantConv2d(2, 4, (4, 3), padding="same", dilation=(1, 2))
        self.strided = qnn.QuantConv2d(4, 4, 3, padding="same", stride=(2, 1), bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.behind = qnn.QuantConv2d(4, 4, (2, 3))
        self.zeros = nn.ZeroPad2d((0, 1, 2, 0))
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.acts = nn.ModuleList(relu() for _ in range(3))
        self.last = qnn.QuantLinear(4 * 4 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.acts[0](self.same(self.image(x)))
        x = self.acts[1](self.norm(self.strided(x)))
        x = self.acts[2](self.behind(F.pad(x, (1, 2, 0, 1))))
        logits: Tensor = self.last(self.pool(self.zeros(x)).flatten(1))
        return logits


class Branches(nn.Module):
    """Codes of one quantizer, and sums that one quantizer reads, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.image = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.ones = nn.ModuleList(qnn.QuantConv2d(2, n, 3, padding=1) for n in (3, 2))
        self.twos = nn.ModuleList(qnn.QuantConv2d(5, n, 3) for n in (2, 4))
        self.acts = nn.ModuleList([qnn.QuantReLU(bit_width=4), qnn.QuantReLU(bit_width=3)])
        self.last = qnn.QuantLinear(6 * 7 * 5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.image(x)
        x = torch.cat([self.acts[0](one(x)) for one in self.ones], dim=1)
        x = self.acts[1](torch.cat([two(x) for two in self.twos], dim=1))
        logits: Tensor = self.last(x.flatten(1))
        return logits


def signals() -> nn.Module:
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv1d(2, 4, 4, padding="same", bias=False),
        nn.BatchNorm1d(4),
        relu(),
        nn.MaxPool1d(2, 2, ceil_mode=True),
        nn.ConstantPad1d((0, 1), 0.0),
        qnn.QuantConv1d(4, 6, 3, stride=2, groups=2),
        relu(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        qnn.QuantIdentity(bit_width=6, return_quant_tensor=True),
        qnn.QuantLinear(6, 5),
    )


def averages(*pools: nn.Module) -> nn.Module:
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3),
        relu(),
        *pools,
        nn.Flatten(),
        qnn.QuantLinear(4 * 4 * 3, 5),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str]]] = {
    "padding": (Padded, IMAGE, {"MaxPool"}),
    "branches": (Branches, IMAGE, {"Concat"}),
    "signals": (signals, SIGNAL, {"MaxPool", "SumPool"}),
    "rounding": (
        lambda: averages(qnn.TruncAvgPool2d(2, 2, bit_width=3), nn.ZeroPad2d((0, 1, 0, 1))),
        IMAGE,
        {"SumPool", "Pad"},
    ),
    "truncating": (
        lambda: averages(
            qnn.TruncAvgPool2d((2, 1), (2, 2), trunc_quant=TruncTo8bit, bit_width=4),
            nn.ZeroPad2d((0, 0, 0, 1)),
        ),
        IMAGE,
        {"SumPool"},
    ),
    "saturating": (
        lambda: averages(
            qnn.TruncAvgPool2d((2, 1), (2, 2), trunc_quant=ShiftRoundSaturateTo8bit, bit_width=4),
            nn.ZeroPad2d((0, 0, 0, 1)),
        ),
        IMAGE,
        {"SumPool"},
    ),
    "edges": (
        lambda: averages(
            nn.AvgPool2d(3, 2, padding=1, count_include_pad=False, ceil_mode=True), relu(5)
        ),
        IMAGE,
        {"SumPool"},
    ),
}


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_engine_gives_the_same_integers(name: str, exporter: Any, tmp_path: Path) -> None:
    build, shape, kinds = NETWORKS[name]
    torch.manual_seed(0)
    x, model = images(shape), build()
    if exporter == "dynamo" and name in ("padding", "signals", "edges"):  # our own quantizers
        model = swap_quantizers(model, **OURS)
    model = warmed(model, x)
    report = export_qonnx(model, tmp_path / "m.onnx", x, exporter=exporter)
    assert report.not_lowered is None
    assert report.network is not None
    assert report.parity.mismatches == 0
    layers = [report.network.input, *report.network.layers]
    compared = [one for one in layers if one.op in ("InputQuant", "Conv", "MatMul", "Threshold")]
    assert {one.source for one in compared} | {"output"} <= set(report.parity.layers)
    assert kinds <= {layer.op for layer in report.network.layers}
    engine = load_engine(tmp_path / "m.onnx")
    assert np.array_equal(engine.predict(x), report.network.predict(x))
    truth = report.network.run(x)
    for layer_name, integers in engine.accumulators(x).items():
        assert np.array_equal(integers, truth[report.network.layer(layer_name).output])


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_divisor_that_no_exporter_writes_is_refused(exporter: Any, tmp_path: Path) -> None:
    x = images(IMAGE)
    model = warmed(
        averages(nn.AvgPool2d(2, 2, divisor_override=3), relu(), nn.ZeroPad2d((0, 1, 0, 1))), x
    )
    with pytest.raises(InputError, match=r"'3'.*divisor_override.*AvgPool2d"):
        export_qonnx(model, tmp_path / "m.onnx", x, exporter=exporter)
