"""Depthwise and grouped convolutions and averages of windows in hardware, exact at each level."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.models import quantize
from divqat_brevitas.training import calibrate
from fpga_flow import export_qonnx
from fpga_flow.compile import CompileSettings, FinnBuild, compare_steps, compile_finn
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.bisect import bisect
from fpga_flow.engines.isolated_layers import measure_layers
from fpga_flow.engines.rtl import timing
from fpga_flow.engines.simulation import Simulation, compiled
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.rtl import Design, generate_design

pytestmark = [pytest.mark.finn, pytest.mark.slow]  # a FINN build, and Verilator
CYCLES = 400


def block(inputs: int, outputs: int, kernel: int, **settings: Any) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **settings)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


@dataclass
class Case:
    path: Path
    build: FinnBuild
    design: Design
    images: Any


@pytest.fixture(scope="module", params=["w4a4", "w2a3"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A depthwise convolution, one of two groups, and an average of windows that overlap."""
    folder = tmp_path_factory.mktemp("depthwise")
    torch.manual_seed(0)
    network = nn.Sequential(
        *block(1, 8, 3),
        *block(8, 8, 3, padding=1, stride=2, groups=8),
        *block(8, 12, 1, groups=2),
        nn.AvgPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(48, 5),
    )
    quantized = quantize(network, request.param)
    images = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8)).astype(np.uint8)
    calibrate(quantized, torch.tensor(images))
    floats = images.astype(np.float32) / 255
    path = folder / "model.onnx"
    export_qonnx(quantized, path, floats)
    settings = CompileSettings(target="ecp5-85f", target_cycles=CYCLES)
    build = compile_finn(path, folder / "build", settings)
    return Case(path, build, generate_design(build, folder / "design"), floats)


def test_every_step_of_finn_has_the_networks_integers(case: Case) -> None:
    rows = compare_steps(case.build, case.path, case.images)
    assert [row.mismatches for row in rows] == [0] * len(rows)


def test_hardware_gives_every_integer_under_stalls_in_the_predicted_cycles(case: Case) -> None:
    assert [node.op for node in case.design.nodes].count("VVAU") == 2
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


def test_all_levels_are_compared_layer_by_layer(case: Case) -> None:
    found = bisect(case.path, case.images[:4], build=case.build, design=case.design)
    assert found.fault is None
