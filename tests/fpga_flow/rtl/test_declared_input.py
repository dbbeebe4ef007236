"""FINN and RTL take any declared input: the host computes what comes before the first code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from finn_networks import finn_worker
from torch import Tensor, nn

from divqat_brevitas import quant
from divqat_brevitas.errors import InputError
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn
from fpga_flow.engines.finn import FinnEngine
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.export import export_qonnx
from fpga_flow.export.parity import probes
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.rtl import Design, generate_design

pytestmark = pytest.mark.finn
WEIGHT = quant.Int4WeightPerTensorFloatDivQAT


class Narrow(quant.Int8ActPerTensorFloatDivQAT):  # type: ignore[misc]
    """Codes -31 to 31: a host that gives -32 is wrong."""

    narrow_range = True
    bit_width = 6


class Features(nn.Module):
    """(N, 6) features, standardised inside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(0, 2, 6))
        self.register_buffer("std", torch.linspace(0.9, 1.1, 6))
        self.body = nn.Sequential(
            QuantIdentity(act_quant=Narrow),
            QuantLinear(6, 8, bias=False, weight_quant=WEIGHT),
            nn.BatchNorm1d(8),
            QuantReLU(act_quant=quant.Uint3ActPerTensorFloatDivQAT),
            QuantLinear(8, 3, bias=False, weight_quant=WEIGHT),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body((x - self.mean) / self.std)
        return logits


class Pixels(nn.Module):
    """(N, 2, 6, 6) pixels of 0 to 255, normalised by a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, momentum=1.0)  # the last batch counts
        self.body = nn.Sequential(
            QuantIdentity(act_quant=quant.Int4ActPerTensorFloatDivQAT),
            QuantConv2d(2, 4, 3, bias=False, weight_quant=WEIGHT),
            nn.BatchNorm2d(4),
            QuantReLU(act_quant=quant.Uint3ActPerTensorFloatDivQAT),
            nn.Flatten(),
            QuantLinear(64, 3, bias=False, weight_quant=WEIGHT),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(self.norm(2 * (x / 255) - 1))
        return logits


@pytest.mark.slow  # simulates generated hardware
@pytest.mark.parametrize(
    ("model", "shape", "declared"),
    [(Features(), (6,), (-3, 5)), (Pixels(), (2, 6, 6), (0, 255))],
    ids=["features", "pixels"],
)
def test_every_engine_takes_the_declared_range(
    model: nn.Module, shape: tuple[int, ...], declared: tuple[float, float], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    low, high = declared
    unit = np.random.default_rng(0).random((40, *shape), dtype=np.float32)
    # The middle half: at the ends of the range the first quantizer clips on both sides.
    examples = (low + (0.25 + unit / 2) * (high - low)).astype(np.float32)
    for _ in range(3):
        model(torch.from_numpy(examples))
    file = tmp_path / "m.onnx"
    report = export_qonnx(model.eval(), file, examples, input_range=declared)
    assert report.network is not None
    inputs = probes(examples, report.network, report.network.input_range)
    codes, quantizer = report.network.input.codes(inputs), report.network.input.quantizer
    assert (codes.min(), codes.max()) == (quantizer.low, quantizer.high)
    expected = IntegerEngine(file).accumulators(inputs)
    build = compile_finn(file, tmp_path / "build", CompileSettings(), finn_worker())
    design = generate_design(build, tmp_path / "design", worker=finn_worker())
    finn = FinnEngine(build.folder)
    try:
        engines: list[Any] = [finn, RtlEngine(design, threads=1)]
        for engine in engines:
            for name, sums in engine.accumulators(inputs).items():
                assert np.array_equal(sums, expected[name]), engine.name
            with pytest.raises(InputError, match=rf"in \[{low}, {high}\] is expected"):
                engine.predict(examples + np.float32(high))
    finally:
        finn.close()
        engines[1].close()
    for kept in (FinnBuild.load(build.folder), Design.load(design.folder)):
        assert (kept.input_step.declared.low, kept.input_step.declared.high) == declared
        assert len(kept.input_step.steps) >= 2
