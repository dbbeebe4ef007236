"""The input's range: declared, stored, checked, and everything before the first code exact."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from divqat_brevitas import quant
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import KnockoffNets, TorchPredictor, Victim, softmax
from divqat_brevitas.input_range import InputRange
from divqat_brevitas.quant import (
    InputRangeWarning,
    Int4WeightPerChannelFloatDivQAT,
    Uint4ActPerTensorFloatDivQAT,
    Uint8ImageDivQAT,
)
from fpga_flow import export_qonnx, load_engine
from fpga_flow.export import ExportReport
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.export.parity import probes
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import load_model, lower
from fpga_flow.serve import QueryLedger, RestVictim, Service, running

WEIGHT = quant.Int4WeightPerChannelFloatDivQAT
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Scaled(nn.Module):
    """A small network whose forward scales its own input."""

    def __init__(self, scaling: Callable[[Tensor], Tensor], act: Any, channels: int = 3) -> None:
        super().__init__()
        self.scaling = scaling
        self.image = qnn.QuantIdentity(act_quant=act)
        self.conv = qnn.QuantConv2d(channels, 4, 3, bias=False, weight_quant=WEIGHT)
        self.norm = nn.BatchNorm2d(4)
        self.relu = qnn.QuantReLU(act_quant=quant.Uint4ActPerTensorFloatDivQAT)
        self.last = qnn.QuantLinear(4 * 16, 5, bias=True, weight_quant=WEIGHT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.image(self.scaling(x))
        return self.last(self.relu(self.norm(self.conv(x))).flatten(1))


def pixels(shape: tuple[int, ...] = (3, 6, 6), count: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.float32)


def warmed(model: nn.Module, x: np.ndarray) -> nn.Module:
    """With statistics of its own."""
    torch.manual_seed(0)
    model.train()
    for _ in range(3):
        model(torch.from_numpy(x))
    return model.eval()


def column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1)


def imagenet(x: Tensor) -> Tensor:
    return (x - column(MEAN)) / column(STD)


def raw_imagenet(x: Tensor) -> Tensor:
    return imagenet(x.float() / 255)


def assert_exact(report: ExportReport, x: np.ndarray) -> None:
    """The codes and accumulators of PyTorch, QONNX and the integer engine, ties included."""
    network = report.network
    assert network is not None, report.not_lowered
    inputs = probes(x, network, network.input_range)
    assert (report.parity.inputs, report.parity.mismatches) == (len(inputs), 0)
    engine, theirs = IntegerEngine(report.path), QonnxEngine(report.path)
    codes = theirs.tensors(inputs, [network.input.output])[network.input.output]
    expected = network.input.to_integers(codes)
    assert np.array_equal(
        engine.integers(inputs, [network.input.name])[network.input.name], expected
    )
    values = inputs
    for step in network.input.preamble:
        values = step(values)
    distance = np.abs(values / network.input.quantizer.scale % 1 - 0.5)
    assert (distance < 1e-3).sum() > 20  # the probes do sit on ties
    sums = engine.accumulators(inputs)
    assert sums.keys() == theirs.accumulators(inputs).keys()
    for name, ours in theirs.accumulators(inputs).items():
        assert np.array_equal(sums[name], ours), name
    assert np.array_equal(engine.predict(inputs), network.predict(inputs))


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize(
    ("scaling", "act", "declared"),
    [
        (imagenet, quant.Int8ActPerTensorFloatDivQAT, (0, 1)),
        (lambda x: 2 * x - 1, quant.Int8ActPerTensorFixedPointDivQAT, (0, 1)),
        (lambda x: 1 - x, quant.Uint4ActPerTensorFloatDivQAT, (0, 1)),
        (lambda x: x.float() / 255, quant.Uint8ImageDivQAT, (0, 255)),
        (raw_imagenet, quant.Int8ActPerTensorFloatDivQAT, (0, 255)),
        (lambda x: x * column(STD) + 0.1, quant.Int4ActPerTensorFloatDivQAT, (-2, 2)),
    ],
)
def test_scaling_inside_forward_is_the_input_step(
    scaling: Any, act: Any, declared: tuple[float, float], tmp_path: Path
) -> None:
    low, high = declared
    x = (low + pixels() / np.float32(255) * (high - low)).astype(np.float32)
    model = warmed(Scaled(scaling, act), x)
    report = export_qonnx(model, tmp_path / "m.onnx", x, input_range=declared)
    assert_exact(report, x)
    assert report.network is not None
    assert (report.network.input_range.low, report.network.input_range.high) == declared


@pytest.mark.slow  # exports and executes whole networks
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_batch_norm_before_the_first_quantizer_is_exact(exporter: Any, tmp_path: Path) -> None:
    x = pixels() / np.float32(255)
    for seed in range(4 if exporter == "torchscript" else 1):  # the other one is slow
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d(3)
        norm.weight.data, norm.bias.data = torch.rand(3) - 0.3, torch.randn(3)
        model = warmed(Scaled(norm, quant.Int8ActPerTensorFloatDivQAT), x)
        report = export_qonnx(model, tmp_path / "m.onnx", x, exporter=exporter)
        assert_exact(report, x)
        assert report.network is not None
        assert [step.op for step in report.network.input.preamble] == ["Mul", "Add"]


def test_a_strangers_file_with_batch_norm_first_is_exact(tmp_path: Path) -> None:
    """Written by Brevitas' own function: QONNX execution and the integer engine still agree."""
    from brevitas.export import export_qonnx as brevitas_export

    x = pixels() / np.float32(255)
    model = warmed(Scaled(nn.BatchNorm2d(3), quant.Int8ActPerTensorFloatDivQAT), x)
    brevitas_export(model, torch.from_numpy(x[:1]), str(tmp_path / "b.onnx"), dynamo=False)
    network = lower(tmp_path / "b.onnx")
    inputs = probes(x, network)
    codes = QonnxEngine(tmp_path / "b.onnx").tensors(inputs, [network.input.output])
    ours = network.input.to_integers(codes[network.input.output])
    assert np.array_equal(network.input.codes(inputs), ours)


def test_features_run_in_a_range_of_their_own(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(-6, 4, (40, 12)).clip(-20, 8).astype(np.float32)
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=quant.Int8ActPerTensorFloatDivQAT),
        qnn.QuantLinear(12, 8, bias=True, weight_quant=WEIGHT),
        qnn.QuantReLU(act_quant=quant.Uint4ActPerTensorFloatDivQAT),
        qnn.QuantLinear(8, 3, bias=True, weight_quant=WEIGHT),
    )
    file = tmp_path / "m.onnx"
    report = export_qonnx(warmed(model, x), file, x, input_range=(-20, 8))
    assert_exact(report, x)
    assert json.loads(load_model(file).get_metadata_prop("divqat.input_range")) == [-20, 8]
    for engine in (IntegerEngine(file), QonnxEngine(file)):
        with pytest.raises(InputError, match=r"from -20 to 30, .*\(N, 12\) in \[-20, 8\]"):
            engine.predict(np.where(x > 0, np.float32(30), np.float32(-20)))
    with pytest.raises(InputError, match=r"in \[0, 1\] is expected.*input_range"):
        export_qonnx(model, tmp_path / "n.onnx", x)


def test_dividing_by_255_twice_is_refused(tmp_path: Path) -> None:
    x = pixels()
    model = warmed(Scaled(lambda x: x / 255, quant.Uint8ImageDivQAT), x)
    with pytest.raises(InputError, match=r"use 0\.4%.*input_range=\(0, 255\)"):
        export_qonnx(model, tmp_path / "m.onnx", x / np.float32(255))
    with pytest.raises(InputError, match=r"from 0 to 255, .*in \[0, 1\]"):
        export_qonnx(model, tmp_path / "m.onnx", x)
    assert not list(tmp_path.iterdir())
    export_qonnx(model, tmp_path / "m.onnx", x, input_range=(0, 255))


def test_normalised_values_do_not_fit_an_image_quantizer(tmp_path: Path) -> None:
    x = pixels() / np.float32(255)
    with pytest.warns(InputRangeWarning, match=r"holds 0 to 1: \d\d\.\d% of them are cut"):
        model = warmed(Scaled(imagenet, quant.Uint8ImageDivQAT), x)
    with pytest.raises(InputError, match=r"from -2\.118 to 2\.64, .*are cut.*signed quantizer"):
        export_qonnx(model, tmp_path / "m.onnx", x)


@pytest.mark.parametrize("bad", [(1, 0), (0, float("inf")), 255, (0, 1, 2), ("a", "b")])
def test_a_range_is_two_numbers(bad: Any, tmp_path: Path) -> None:
    model = Scaled(lambda x: x, quant.Uint8ImageDivQAT)
    with pytest.raises(InputError, match=r"the input range is .*such as \(0, 255\)"):
        export_qonnx(model, tmp_path / "m.onnx", pixels() / np.float32(255), input_range=bad)


def test_a_damaged_declaration_is_named(tmp_path: Path) -> None:
    x = pixels() / np.float32(255)
    model = warmed(Scaled(lambda x: x, quant.Uint8ImageDivQAT), x)
    export_qonnx(model, tmp_path / "m.onnx", x)
    damaged = load_model(tmp_path / "m.onnx")
    assert damaged.get_metadata_prop("divqat.input_range") is None  # means [0, 1]
    damaged.set_metadata_prop("divqat.input_range", "[0, ")
    with pytest.raises(InputError, match=r"declares its input range .*'\[0, '"):
        lower(damaged)


def test_victims_and_servers_read_the_declaration(tmp_path: Path) -> None:
    x = pixels()
    model = warmed(Scaled(lambda x: x / 255, quant.Uint8ImageDivQAT), x)
    export_qonnx(model, tmp_path / "m.onnx", x, input_range=(0, 255))
    engine = IntegerEngine(tmp_path / "m.onnx")
    pool = np.zeros((8, 3, 8, 8), np.float32)
    for predictor in (engine, TorchPredictor(model, input_range=(0, 255))):
        victim = Victim(predictor, oracle="logits", budget=100)
        assert np.array_equal(victim.query(x).argmax(1), engine.predict(x).argmax(1))
        with pytest.raises(InputError, match=r"must lie in \[0, 255\] .*span \[0\.0, 510"):
            victim.query(2 * x)
        with pytest.raises(InputError, match=r"takes inputs in \[0, 255\].*scales images"):
            KnockoffNets(surrogate="vgg-small", seed=0).run(victim, pool, budget=4)
    service = Service(victim, (3, 6, 6), 5, QueryLedger(None, {}, budget=1000))
    with running(service) as url:
        remote = RestVictim(url)
        assert remote.info.input_range == InputRange(0, 255)
        assert np.array_equal(remote.query(x).argmax(1), engine.predict(x).argmax(1))
        with pytest.raises(InputError, match=r"\[0, 255\]"):
            remote.query(2 * x)


def test_features_are_served(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 3, (40, 12)).clip(-9, 9).astype(np.float32)
    victim = Victim(
        TorchPredictor(nn.Linear(12, 3), input_range=(-9, 9)), oracle="logits", budget=100
    )
    expected = victim.query(x)
    with running(Service(victim, (12,), 3, QueryLedger(None, {}, budget=100))) as url:
        assert np.array_equal(RestVictim(url).query(x), expected)


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
