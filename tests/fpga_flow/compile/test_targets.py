"""Targets: names, capacities, and agreement with FINN's board table."""

import pytest

from divqat_brevitas.errors import InputError
from fpga_flow.pipeline.config import CompileSection
from fpga_flow.pipeline.stages.hardware import finn_settings
from fpga_flow.synthesis.cells import Cells, count
from fpga_flow.synthesis.tools import PACKAGES
from fpga_flow.targets import TARGETS, OpenTarget, Resources, VivadoTarget, open_target, target


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(InputError, match="unknown target 'ecp5-85': did you mean 'ecp5-85f'"):
        target("ecp5-85")


def test_a_vivado_board_is_no_open_device() -> None:
    with pytest.raises(InputError, match="device of the open flow 'pynq-z1'"):
        open_target("pynq-z1")


def test_an_interface_without_pins_is_refused_before_anything_is_built() -> None:
    chosen = CompileSection(target="tang-nano-20k", until="bitstream", interface="ft245")
    with pytest.raises(InputError, match="no pins for the interface ft245: choose uart"):
        finn_settings(chosen)
    finn_settings(chosen.model_copy(update={"until": "rtl"}))  # a design has no pins


OPEN = [device for device in TARGETS.values() if isinstance(device, OpenTarget)]


@pytest.mark.parametrize("device", OPEN, ids=lambda device: device.name)
def test_every_family_names_the_kinds_and_programs_there_are(device: OpenTarget) -> None:
    family = device.family
    kinds = {kind for kind, _ in family.placed.values()}
    assert kinds == set(Resources.__dataclass_fields__)
    assert {family.tools.place, family.tools.pack} <= set(PACKAGES)
    assert family.flip_flops <= set(family.cells)
    assert count(family.flip_flops, family) == Cells(ff=len(family.flip_flops))


@pytest.mark.finn
def test_boards_and_parts_are_those_of_finn() -> None:
    pytest.importorskip("finn")
    from finn.util.basic import part_map

    boards = {t.board: t.part for t in TARGETS.values() if isinstance(t, VivadoTarget)}
    assert boards == {board: part_map[board] for board in boards}
