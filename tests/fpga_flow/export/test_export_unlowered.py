"""Models that cannot become integers: their file is written, executed rightly and said to be so."""

from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Victim, softmax
from divqat_brevitas.quant import (
    Int4WeightPerChannelFloatDivQAT,
    Uint4ActPerTensorFloatDivQAT,
    Uint8ImageDivQAT,
)
from fpga_flow import export_qonnx, load_engine


class Coordinates(nn.Module):
    """Puts a channel of positions beside the image: a constant of one image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(0, 1, 64).reshape(1, 1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.grid.expand(len(x), -1, -1, -1)], dim=1)


def network(
    *before: nn.Module, after: nn.Module | None = None, channels: int = 1, side: int = 8
) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        *before,
        qnn.QuantConv2d(
            channels,
            4,
            3,
            weight_quant=Int4WeightPerChannelFloatDivQAT,
            input_quant=Uint8ImageDivQAT,
        ),
        *([] if after is None else [after]),
        qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT),
        nn.Flatten(),
        qnn.QuantLinear(
            4 * (side - 2) ** 2, 5, bias=True, weight_quant=Int4WeightPerChannelFloatDivQAT
        ),
    )
    net(images(16))
    return net


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


UNLOWERED = {
    "resized": lambda: network(nn.Upsample(size=(16, 16)), side=16),
    "coordinates": lambda: network(Coordinates(), channels=2),
}


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", UNLOWERED)
def test_constants_of_one_image_are_executed_image_by_image(
    kind: str, exporter: Any, tmp_path: Path
) -> None:
    x = images(16)
    report = export_qonnx(UNLOWERED[kind](), tmp_path / "model.onnx", x, exporter=exporter)
    assert report.path.is_file()
    assert report.network is None
    assert report.not_lowered is not None
    assert (report.parity.inputs, report.parity.mismatches) == (22, 0)
    with torch.no_grad():
        expected = report.model(x).numpy()
    logits = load_engine(report.path, "qonnx").predict(x.numpy())
    # Float32 sums in another order: a few units in the last place of logits below 1.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_answers_that_depend_on_the_batch_are_refused(exporter: Any, tmp_path: Path) -> None:
    net = network(after=nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(InputError, match=r"depends on .*1 \(BatchNorm2d\).*track_running_stats"):
        export_qonnx(net, tmp_path / "model.onnx", images(16), exporter=exporter)
    assert not list(tmp_path.iterdir())


def test_a_form_that_no_engine_reads_is_refused_by_name(tmp_path: Path) -> None:
    """The torchscript exporter writes this layer with a branch; the other one does not."""
    net = network(after=nn.LocalResponseNorm(3))
    with pytest.raises(InputError, match=r"torchscript exporter writes.*exporter='dynamo'"):
        export_qonnx(net, tmp_path / "model.onnx", images(16))
    assert not list(tmp_path.iterdir())
    report = export_qonnx(net, tmp_path / "model.onnx", images(16), exporter="dynamo")
    assert report.path.is_file()
    assert report.not_lowered is not None


def test_a_softmax_at_the_end_is_no_logits_of_the_engine(tmp_path: Path) -> None:
    net = network()
    report = export_qonnx(
        nn.Sequential(*net, nn.Softmax(dim=1)), tmp_path / "model.onnx", images(16)
    )
    assert "Export logits" in str(report.not_lowered)
    engine, x = load_engine(report.path, "qonnx"), images(20)
    with torch.no_grad():
        probabilities = report.model(x).numpy()
    # Float32: two softmaxes that sum in another order.
    shown = Victim(engine, "soft").query(x.numpy())
    np.testing.assert_allclose(shown, probabilities, rtol=1e-5, atol=1e-6)
    assert not np.allclose(softmax(probabilities), probabilities, rtol=0, atol=0.01)


def test_a_model_without_a_row_an_image_is_refused_by_name(tmp_path: Path) -> None:
    """Its only output row is made of all images: no engine can answer each of them."""
    domain = "qonnx.custom_op.general"
    numbers = {"s": 1 / 255, "z": 0.0, "b": 8.0}
    constants = [numpy_helper.from_array(np.float32(v), k) for k, v in numbers.items()]
    constants.append(numpy_helper.from_array(np.ones((1, 4), np.float32), "row"))
    constants.append(numpy_helper.from_array(np.array([5], np.int64), "shape"))
    nodes = [
        helper.make_node(
            "Quant", ["x", "s", "z", "b"], ["q"], domain=domain, signed=0, narrow=0,
            rounding_mode="ROUND",
        ),
        helper.make_node("Concat", ["q", "row"], ["wide"], axis=1),
        helper.make_node("Reshape", ["wide", "shape"], ["y"]),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, [1, 1])], [value("y", 1, [5])], constants)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(domain, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "model.onnx")
    engine = load_engine(tmp_path / "model.onnx", "qonnx")
    with pytest.raises(InputError, match=r"shape \(5,\) for 1 image: .*row for each image"):
        engine.predict(np.ones((3, 1), np.float32))
