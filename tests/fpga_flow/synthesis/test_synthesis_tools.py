"""Tools as child processes, and what is read from their output."""

import os
import time
from pathlib import Path

import pytest
from read_back import logic

from divqat_brevitas.errors import InputError, ToolMissingError
from fpga_flow.devices.ecp5 import ECP5
from fpga_flow.pipeline.config import CompileSection
from fpga_flow.pipeline.stages.hardware import finn_settings
from fpga_flow.synthesis import BitstreamReport, tools
from fpga_flow.synthesis.cells import OUTSIDE, Cells, Layers, chain_ends, count, cut_carries
from fpga_flow.synthesis.route import overflow
from fpga_flow.synthesis.tools import PACKAGES, Deadline, ToolFailedError, run_tool
from fpga_flow.targets import TARGETS, OpenTarget, Resources, VivadoTarget, open_target, target


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Puts a script in place of the tools."""

    def put(body):
        script = tmp_path / "fake.py"
        script.write_text(body)
        monkeypatch.setattr(tools, "_WORKER", script)
        monkeypatch.setattr(tools, "version", lambda tool: "1")

    return put


def run(tmp_path, seconds=30.0, watch=None):
    return run_tool("yosys", ["a"], tmp_path, tmp_path / "log", Deadline(seconds), watch)


@pytest.mark.parametrize("tool", ["slang", "gowin_pack"])
def test_a_missing_tool_is_exit_code_3_and_says_how_to_install_it(monkeypatch, tool):
    monkeypatch.setitem(tools.PACKAGES, tool, "no-such-package")
    with pytest.raises(ToolMissingError, match=r"pip install 'divqat\[hardware\]'") as caught:
        tools.versions((tool, "yosys"))
    assert caught.value.exit_code == 3


def test_a_failure_shows_the_errors_and_keeps_the_log(fake, tmp_path):
    fake("print('working'); print('ERROR: no such cell'); raise SystemExit(1)")
    with pytest.raises(ToolFailedError, match="ERROR: no such cell") as caught:
        run(tmp_path)
    assert caught.value.exit_code == 1
    assert "working" in caught.value.log.read_text()


def test_a_killed_tool_is_named(fake, tmp_path):
    fake("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ToolFailedError, match=r"signal 9.*Out of memory"):
        run(tmp_path)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


@pytest.mark.parametrize("reason", ["time", "interrupt"])
def test_whatever_stops_it_nothing_is_left_running(fake, tmp_path, reason):
    fake(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, os.getpid(), flush=True)\ntime.sleep(600)\n"
    )

    def watch(text):
        if reason == "interrupt" and text.strip():
            raise KeyboardInterrupt

    expected = ToolFailedError if reason == "time" else KeyboardInterrupt
    with pytest.raises(expected):
        run(tmp_path, 3.0 if reason == "time" else 60.0, watch)
    pids = [int(word) for word in (tmp_path / "log").read_text().split()]
    assert len(pids) == 2
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            break
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_cells_are_counted_where_their_name_says():
    layers = Layers(["MVAU_rtl_1", "MVAU_rtl_10", "MVAU_rtl_1_fifo"])
    cells = {
        "core.MVAU_rtl_1.acc_TRELLIS_FF_Q": "TRELLIS_FF",
        "core.MVAU_rtl_1_weights.Mem.0.0": "DP16KD",
        "core.MVAU_rtl_10.x": "LUT4",
        "core.MVAU_rtl_1_fifo.Mem": "TRELLIS_DPR16X4",
        "uart.y": "CCU2C",
    }
    rows = {layer.name: layer.cells for layer in layers.count(cells, ECP5)}
    assert list(rows) == ["MVAU_rtl_1", "MVAU_rtl_10", "MVAU_rtl_1_fifo", OUTSIDE]
    assert (rows["MVAU_rtl_1"].ff, rows["MVAU_rtl_1"].bram) == (1, 1)
    assert (rows["MVAU_rtl_1_fifo"].lut, rows["MVAU_rtl_1_fifo"].lutram) == (6, 1)
    assert rows[OUTSIDE].lut == 2
    assert sum(row.lut for row in rows.values()) == count(cells.values(), ECP5).lut == 9


def test_carries_that_nobody_needs_are_cut():
    def carry(taken, given, first="0111100010001000"):
        directions = {"CIN": "input", "COUT": "output"}
        wires = {"CIN": [taken], "COUT": [given]}
        parameters = {"INIT0": first}
        return {"type": "CCU2C", "port_directions": directions, "connections": wires,
                "parameters": parameters}  # fmt: skip

    cells = {
        "adds": carry("0", 2),
        "ends": carry(2, 3),
        "starts": carry("0", 4, "0" * 16),
        "leaves": carry(4, 5),
        "one": carry("1", 6, "0" * 16),
    }
    module = {"cells": cells, "ports": {"out": {"bits": [5]}}}
    cut_carries(module)
    ends = {
        name: (cell["connections"]["CIN"][0], cell["connections"]["COUT"][0])
        for name, cell in cells.items()
    }
    assert ends == {
        "adds": ("0", 2), "ends": (2, "x"), "starts": ("x", 4), "leaves": (4, 5), "one": ("1", "x"),
    }  # fmt: skip
    # Those that are left cost a carry cell each: a constant and a net that something else reads.
    assert set(chain_ends(module)) == {"adds.begin", "one.begin", "leaves.end"}


def test_overflow_is_read_from_the_utilisation_table():
    table = """Info: Device utilisation:
Info: 	          DP16KD:     225/    208   108%
Info: 	      MULT18X18D:       0/    156     0%
Info: 	      TRELLIS_FF:   24351/  83640    29%
Info: 	    TRELLIS_COMB:   29594/  83640    35%
"""
    assert overflow(table, open_target("ecp5-85f")) == {"bram": (225, 208)}
    assert set(overflow(table, open_target("ecp5-25f"))) == {"bram", "ff", "lut"}
    assert overflow("Info: Packing", open_target("ecp5-25f")) == {}


def test_cells_of_gowin_are_summed_to_ours():
    table = """Info: Device utilisation:
Info: 	                LUT4:   20000/  20736    96%
Info: 	           RAM16SDP4:     100/    648    15%
Info: 	                 ALU:     500/  15552     3%
Info: 	               BSRAM:      46/     46   100%
Info: 	             MULT9X9:      10/     96    10%
Info: 	           MULT18X18:      44/     48    91%
"""
    # An ALU is in the place of a LUT, a LUT RAM in those of six; one of 18x18 bits is two of 9x9.
    over = overflow(table, open_target("tang-nano-20k"))
    assert over == {"lut": (20_000 + 500 + 600, 20_736), "dsp": (98, 96)}


def test_logic_keeps_places_and_not_orders():
    one = ".tile R2C3:PLC2\narc: A0 B1\nword: SLICEA.K0.INIT 0101\n\n.bram_init 3\n001 002\n003\n"
    other = ".tile R2C3:PLC2\nword: SLICEA.K0.INIT 0101\narc: A0 B1\n\n.bram_init 3\n003\n001 002\n"
    assert len(logic(one)) == 4
    assert len(logic(one) ^ logic(other)) == 4  # the words of the block RAM moved
    assert logic(".tile R2C3:PLC2\narc: F0 F0_SLICE\n") == set()


def test_a_folder_without_a_bitstream_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no bitstream"):
        BitstreamReport.load(tmp_path)


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
