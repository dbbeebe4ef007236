"""Generated hardware gives the integers of the integer engine: every layer, every output."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import hardware_networks

from fpga_flow.simulate.process import Simulation, compiled

pytestmark = pytest.mark.finn


def check(folder, seed, style, count=24):
    """Every layer's integers, under stalls on both ends."""
    case = hardware_networks.random_case(folder, seed)
    design = hardware_networks.random_design(case, folder, style)
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_layers_equal_the_integer_engine(tmp_path, seed):
    check(tmp_path, seed, "portable")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3])
def test_finns_own_modules_equal_the_integer_engine(tmp_path, seed):
    check(tmp_path, seed, "finn")


def test_a_random_network_equals_the_integer_engine(tmp_path):
    check(tmp_path, 7, "portable")
