"""Targets: names, capacities, and agreement with FINN's board table."""

import pytest

from divqat_brevitas.errors import InputError
from fpga_flow.targets import TARGETS, VivadoTarget, open_target, target


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(InputError, match="unknown target 'ecp5-85': did you mean 'ecp5-85f'"):
        target("ecp5-85")


def test_a_vivado_board_is_no_open_device() -> None:
    with pytest.raises(InputError, match="device of the open flow 'pynq-z1'"):
        open_target("pynq-z1")


@pytest.mark.finn
def test_boards_and_parts_are_those_of_finn() -> None:
    pytest.importorskip("finn")
    from finn.util.basic import part_map

    boards = {t.board: t.part for t in TARGETS.values() if isinstance(t, VivadoTarget)}
    assert boards == {board: part_map[board] for board in boards}
