"""Generated hardware gives the integers of the integer engine: every layer, every output."""

import finn_networks
import hardware_networks
import numpy as np
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantLinear, QuantReLU
from brevitas.quant import SignedBinaryWeightPerTensorConst
from torch import nn

from fpga_flow.compile import CompileSettings, compile_finn
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.engines.simulation import Simulation, compiled
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.rtl import DesignSettings, generate_design

pytestmark = pytest.mark.finn


@pytest.mark.slow  # simulates generated hardware; more of them in tests/random_networks
@pytest.mark.parametrize(
    ("style", "seed"), [("portable", 1), ("portable", 2), ("portable", 4), ("finn", 3)]
)
def test_random_layers_equal_the_integer_engine(tmp_path, style, seed):
    """Every layer's integers, under stalls on both ends."""
    case = hardware_networks.random_case(tmp_path, seed)
    design = hardware_networks.random_design(case, tmp_path, style)
    count = 24
    images = case.images(count)
    expected = case.integers(images)
    simulation = Simulation(design, compiled(design, taps=True))
    try:
        answer = simulation.run(
            design.beats(images), idle=30, back_pressure=40, seed=seed, observe=True
        )
    finally:
        simulation.close()
    assert answer.whole
    compared = set()
    for node, tap in zip(design.nodes, answer.taps, strict=True):
        if node.layer is not None:
            compared.add(node.layer)
            assert tap.beats == count * node.output.beats, node.name
            integers = node.output.unpack(tap.data).reshape(count, -1)
            assert np.array_equal(integers, expected[node.layer]), node.name
    assert len(compared) == 4  # three activations and the last accumulators
    assert np.array_equal(design.accumulators(answer.beats), integers)


def _network(folder, network, settings):
    onnx = finn_networks.export(network, (1, 8, 8), folder / "network.onnx")
    build = compile_finn(onnx, folder / "build", settings)
    return onnx, generate_design(build, folder / "design", DesignSettings(fifo_depths=2))


@pytest.mark.slow
def test_a_thousand_images_under_stalls(tmp_path):
    torch.manual_seed(0)
    settings = CompileSettings(target_fps=50_000)
    onnx, design = _network(tmp_path, finn_networks.cnn(3, 8), settings)
    images = finn_networks.images((1, 8, 8), 1000)
    with RtlEngine(design, idle=0.3, back_pressure=0.3) as engine:
        (found,) = engine.accumulators(images).values()
    assert np.array_equal(found, IntegerEngine(onnx).accumulators(images)[design.output_layer])


@pytest.mark.slow
def test_one_bit_weights_become_two_bits(tmp_path):
    torch.manual_seed(0)
    weights = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
    network = nn.Sequential(
        finn_networks.pixels(),
        QuantConv2d(1, 4, 3, **weights),
        nn.BatchNorm2d(4),
        QuantReLU(bit_width=2, return_quant_tensor=True),
        nn.Flatten(),
        QuantLinear(144, 5, **weights),
    )
    onnx, design = _network(tmp_path, network, CompileSettings(target_fps=20_000))
    images = finn_networks.images((1, 8, 8), 50)
    with RtlEngine(design, threads=1) as engine:
        (found,) = engine.accumulators(images).values()
    assert np.array_equal(found, IntegerEngine(onnx).accumulators(images)[design.output_layer])
