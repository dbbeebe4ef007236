"""Networks with branches in hardware: integers of every level, cycles, what shortcuts hold."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import finn_networks as networks
import numpy as np
import pytest
import torch
from brevitas.nn import QuantConv2d, QuantLinear, QuantReLU
from hardware_networks import Hardware
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.models import quantize
from divqat_brevitas.models.resnet import ResidualArchitecture
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.bisect import bisect
from fpga_flow.engines.fifos import _compiled, size_fifos
from fpga_flow.engines.rtl import timing
from fpga_flow.engines.simulation import Simulation, compiled
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.rtl import Design, restitch
from fpga_flow.rtl.design import Node
from fpga_flow.rtl.stitch import FIFO

pytestmark = [pytest.mark.finn, pytest.mark.slow]  # a FINN build, and Verilator
JOINS = ("ElementwiseAdd", "StreamingConcat")


class Concatenated(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def concatenations() -> nn.Module:
    """Two convolutions side by side, two beside their own input, three branches with a pool."""
    shared = QuantReLU(bit_width=4)

    def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
        layer = QuantConv2d(
            inputs, outputs, kernel, padding=kernel // 2, bias=False, weight_bit_width=4
        )
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), shared)

    return nn.Sequential(
        networks.pixels(),
        conv(1, 4, 3),
        Concatenated(conv(4, 4, 1), conv(4, 8, 3)),
        Concatenated(nn.Identity(), conv(12, 4, 3)),
        nn.MaxPool2d(2),
        Concatenated(conv(16, 4, 3), nn.Identity()),
        Concatenated(conv(20, 4, 1), conv(20, 4, 3), nn.MaxPool2d(3, 1, 1)),
        nn.Flatten(),
        QuantLinear(28 * 16, 10, bias=True, weight_bit_width=4),
    )


def residual() -> nn.Module:
    """An identity shortcut, then one with a convolution."""
    return nn.Sequential(*ResidualArchitecture((1, 1), (4, 8), 8, "small").layers(1, 10))


@pytest.fixture(scope="module", params=[residual, concatenations])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    """A network on 8x8 pixels."""
    folder = tmp_path_factory.mktemp("branches")
    torch.manual_seed(0)
    network = request.param()
    for module in network.modules():  # factors and shifts of a trained network
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    quantized = (
        quantize(network, "w4a4", join_bit_width=6) if request.param is residual else network
    )
    return Hardware.quantized(quantized, folder, cycles=300)


@pytest.fixture
def limited(case: Hardware, tmp_path: Path) -> Iterator[tuple[Design, Simulation]]:
    """The design with FIFOs of any depth."""
    full = restitch(case.design, tmp_path / "full", fifo_depths=2)
    simulation = Simulation(full, _compiled(full))
    yield full, simulation
    simulation.close()


def test_every_step_of_finn_has_the_networks_integers(case: Hardware) -> None:
    case.check_steps()


def test_hardware_gives_every_integer_under_stalls_in_the_predicted_cycles(case: Hardware) -> None:
    design, count = case.design, len(case.images)
    free, stalled = case.run_with_stalls()
    tensors = [node.layer for node in design.nodes if node.layer is not None]
    expected = IntegerEngine(case.path).integers(case.images, tensors)
    for node, tap in zip(design.nodes, stalled.taps, strict=True):
        if node.layer is not None:
            values = expected[node.layer]
            flat = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
            seen = node.output.unpack(tap.data[: count * node.output.beats])
            assert np.array_equal(seen.reshape(count, -1), flat.reshape(count, -1)), node.name
    assert len(tensors) == len(case.build.activations) + 1
    predicted = load_prediction(case.build)
    assert predicted is not None
    assert timing(free).interval_cycles == predicted.cycles_per_image <= case.cycles


@pytest.mark.parametrize("case", [residual], indirect=True)
def test_an_identity_shortcut_is_wires(case: Hardware) -> None:
    text = (case.design.folder / "src/divqat_layers.sv").read_text()
    (join,) = [node for node in case.design.nodes if node.op == "ElementwiseAdd"][:1]
    name = join.sources[1].removesuffix("_fifo")
    body = text.split(f"module divqat_{name} ")[1].split("endmodule")[0]
    assert "thresholding" not in body.lower().replace(name.lower(), "")
    assert "assign	s_axis_tready = m_axis_tready;" in body


def test_a_shortcut_one_shorter_hangs(limited: tuple[Design, Simulation]) -> None:
    full, simulation = limited
    fifos = [node for node in full.nodes if node.op == FIFO]
    direct = [k for k, node in enumerate(fifos) if node.least and _is_direct(full, node)]
    assert direct
    beats = np.zeros((4, full.input.beats, full.input.bytes), np.uint8)
    for shortcut in direct:
        # Wires instead of the others: they would hold some of the beats.
        limits = [4 * (node.depth or 2) if node.least else 0 for node in fifos]
        limits[shortcut] = fifos[shortcut].least - 1  # and one in the output register
        assert simulation.run(beats, limits=limits).whole
        limits[shortcut] -= 1
        assert not simulation.run(beats, limits=limits).whole


def _is_direct(design: Design, node: Node) -> bool:
    """Whether nothing but wires lies between a fork and a FIFO."""
    while node.op != "DuplicateStreams":
        if node.op == "MVAU":
            return False
        node = design.before(node)[0]
    return True


def test_no_depth_asked_for_makes_a_shortcut_hang(case: Hardware, tmp_path: Path) -> None:
    least = {node.name: node.least for node in case.design.nodes if node.least}
    asked = dict.fromkeys(least, 2)
    short = restitch(case.design, tmp_path / "short", fifo_depths=asked)
    assert {node.name: node.depth for node in short.nodes if node.least} == least


def test_sized_fifos_keep_speed_and_integers(case: Hardware, tmp_path: Path) -> None:
    sizing = size_fifos(case.design)
    assert sizing.interval_cycles <= 1.005 * sizing.unlimited_cycles
    assert sizing.unlimited_cycles <= case.cycles
    sized = restitch(case.design, tmp_path / "sized", fifo_depths=sizing.depths)
    simulation = Simulation(sized, compiled(sized))
    try:
        answer = simulation.run(sized.beats(case.images))
    finally:
        simulation.close()
    assert np.array_equal(sized.accumulators(answer.beats), case.sums)
    assert timing(answer).interval_cycles <= 1.005 * sizing.unlimited_cycles


def test_a_fault_in_a_branch_is_found_there(case: Hardware, tmp_path: Path) -> None:
    assert bisect(case.path, case.images[:4], design=case.design).fault is None
    faulty = tmp_path / "faulty"
    shutil.copytree(case.design.folder, faulty)
    joins = [node for node in case.design.nodes if node.op in JOINS]
    # A branch of the second block: its thresholds read the unit at fault.
    node = next(n for n in case.design.nodes if n.name == joins[1].sources[1][: -len("_fifo")])
    while node.op != "MVAU":
        (node,) = case.design.before(node)
    file = faulty / f"{node.name}_weights.dat"
    words = file.read_text().split()
    file.write_text("\n".join(["0" * len(word) for word in words]) + "\n")
    fault = bisect(case.path, case.images[:4], design=Design.load(faulty)).fault
    assert fault is not None
    assert fault.nodes[-1] == node.name
    assert not any("Thresholding" in name for name in fault.nodes)


def test_a_part_that_cuts_a_branch_is_refused(case: Hardware, tmp_path: Path) -> None:
    layers = [node for node in case.design.nodes if node.op != FIFO]
    fork, join = (
        next(k for k, node in enumerate(layers) if node.op in ops)
        for ops in (("DuplicateStreams",), JOINS)
    )
    part = restitch(case.design, tmp_path / "part", first=layers[fork].name, last=layers[join].name)
    assert part.nodes[-1].input.beats == layers[join].output.beats
    with pytest.raises(InputError, match="cuts a branch at"):
        restitch(case.design, tmp_path / "cut", first=layers[fork + 1].name)


def test_the_record_survives_json(case: Hardware) -> None:
    assert replace(Design.load(case.design.folder)) == case.design
