"""One-bit weights and activations in hardware, one bit each, exact at each level."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import finn_networks as networks
import numpy as np
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantIdentity, QuantLinear
from brevitas.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from torch import nn

from fpga_flow.compile import CompileSettings, FinnBuild, compare_steps, compile_finn
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.bisect import bisect
from fpga_flow.engines.isolated_layers import measure_layers
from fpga_flow.engines.rtl import timing
from fpga_flow.engines.simulation import Simulation, compiled
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.rtl import Design, generate_design
from fpga_flow.rtl.refusals import rtl_findings

pytestmark = [pytest.mark.finn, pytest.mark.slow]  # a FINN build, and Verilator
CYCLES = 200
WEIGHTS: dict[str, Any] = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}


def signs() -> nn.Module:
    return QuantIdentity(act_quant=SignedBinaryActPerTensorConst, return_quant_tensor=True)


def cnv() -> nn.Module:
    """Convolutions without padding, a pool, linear layers: as FINN's CNV, on 8x8 images."""
    return nn.Sequential(
        networks.pixels(),
        *(QuantConv2d(1, 8, 3, **WEIGHTS), nn.BatchNorm2d(8), signs()),
        *(QuantConv2d(8, 12, 3, **WEIGHTS), nn.BatchNorm2d(12), signs(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(QuantLinear(48, 16, **WEIGHTS), nn.BatchNorm1d(16), signs()),
        QuantLinear(16, 10, **WEIGHTS),
    )


def tfc() -> nn.Module:
    """Linear layers, of a one-bit image."""
    return nn.Sequential(
        nn.Flatten(),
        signs(),
        *(QuantLinear(64, 20, **WEIGHTS), nn.BatchNorm1d(20), signs()),
        *(QuantLinear(20, 16, **WEIGHTS), nn.BatchNorm1d(16), signs()),
        QuantLinear(16, 10, **WEIGHTS),
    )


@dataclass
class Case:
    path: Path
    build: FinnBuild
    design: Design
    images: Any


@pytest.fixture(scope="module", params=[cnv, tfc], ids=["cnv", "tfc"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("one_bit")
    torch.manual_seed(0)
    path = networks.export(request.param(), (1, 8, 8), folder / "model.onnx")
    assert rtl_findings(path) == []
    settings = CompileSettings(target="ecp5-85f", target_cycles=CYCLES)
    build = compile_finn(path, folder / "build", settings)
    images = networks.images((1, 8, 8), 24)
    return Case(path, build, generate_design(build, folder / "design"), images)


def test_every_step_of_finn_has_the_networks_integers(case: Case) -> None:
    rows = compare_steps(case.build, case.path, case.images)
    assert [row.mismatches for row in rows] == [0] * len(rows)


def test_hardware_gives_every_integer_under_stalls_in_the_predicted_cycles(case: Case) -> None:
    engine = IntegerEngine(case.path)
    last = engine.network.output.tensor
    sums = engine.integers(case.images, [last])[last]
    simulation = Simulation(case.design, compiled(case.design))
    try:
        beats = case.design.beats(case.images)
        free = simulation.run(beats)
        stalled = simulation.run(beats, idle=30, back_pressure=40, seed=3)
    finally:
        simulation.close()
    assert np.array_equal(case.design.accumulators(free.beats), sums)
    assert np.array_equal(case.design.accumulators(stalled.beats), sums)
    predicted = load_prediction(case.build)
    assert predicted is not None
    # Each layer is predicted exactly; the model has no waits for the few words between layers.
    measured, model = timing(free).interval_cycles, predicted.cycles_per_image
    assert model <= measured <= 1.02 * model <= 1.02 * CYCLES
    assert measure_layers(case.design).items() <= predicted.cycles.items()


def test_weights_and_activations_between_one_bit_layers_are_bits(case: Case) -> None:
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


def test_all_levels_are_compared_layer_by_layer(case: Case) -> None:
    found = bisect(case.path, case.images[:4], build=case.build, design=case.design)
    assert found.fault is None
