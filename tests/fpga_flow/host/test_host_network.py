"""A network's whole chip, from the driver's bytes to its answers, equals the integer engine."""

import numpy as np
import pytest

from fpga_flow.engines.chip import simulate_chip
from fpga_flow.engines.engine import load_engine
from fpga_flow.host.chip import write_chip

pytestmark = [pytest.mark.finn, pytest.mark.slow]


@pytest.mark.parametrize(("seed", "interface", "divider"), [(1, "uart", 6), (2, "ft245", None)])
def test_a_random_network_on_a_chip(tmp_path, seed, interface, divider):
    import hardware_networks

    case = hardware_networks.random_case(tmp_path, seed)
    design = hardware_networks.random_design(case, tmp_path, "portable")
    images = case.images(12)
    chip = write_chip(design, tmp_path / "chip", interface=interface, clock_mhz=60.0)
    engine = simulate_chip(design, chip, divider=divider)
    (found,) = engine.accumulators(images).values()
    *_, last = load_engine(case.onnx).accumulators(images).values()
    assert np.array_equal(found, last.reshape(found.shape))
    assert engine.driver.status().images == len(images)
    assert engine.driver.recoveries == 1
    engine.driver.close()
