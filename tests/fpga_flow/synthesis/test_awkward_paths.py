"""The open flow in folders whose names have spaces, quotes and letters beyond ASCII."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import memory_core
import pytest
from read_back import read_back

from fpga_flow.engines.netlist import compare_netlist
from fpga_flow.synthesis import build_bitstream
from fpga_flow.synthesis.tools import Deadline, run_tool
from fpga_flow.targets import open_target

# A space splits, a quote opens, a semicolon ends, a dollar expands and a hash comments out.
NAME = "a b'\"é $x; #&"
_SOURCE = """
module squared (input clk, input [3:0] x, output reg [3:0] y);
  always @(posedge clk) y <= x * x + 3;
endmodule
"""


@pytest.fixture
def awkward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of that name; temporary files and compiled simulations go below it, too."""
    folder = tmp_path / NAME
    for name in ("tmp dir", "cache c"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder / "tmp dir"))
    monkeypatch.setenv("DIVQAT_CACHE", str(folder / "cache c"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is looked up once
    yield folder
    assert not list((folder / "tmp dir").iterdir())


@pytest.mark.parametrize(
    "command", ["synth_ecp5", pytest.param("synth_xilinx", marks=pytest.mark.slow)]
)
def test_yosys_and_its_abc_work_in_any_folder(awkward: Path, command: str) -> None:
    (awkward / "squared.v").write_text(_SOURCE)
    commands = ["read_verilog squared.v", f"{command} -top squared", "write_json squared.json"]
    run_tool("yosys", commands, awkward, awkward / "log", Deadline(300))
    assert '"squared"' in (awkward / "squared.json").read_text()
    left = {path.name for path in awkward.iterdir()}
    assert left == {"squared.v", "squared.json", "log", "tmp dir", "cache c"}


@pytest.mark.slow
def test_from_the_design_to_the_bits_in_any_folder(awkward: Path) -> None:
    """slang, yosys, nextpnr, ecppack and ecpunpack, then Verilator and g++."""
    design = memory_core.memory_design(awkward / "the core" / "design")
    built = build_bitstream(design, open_target("ecp5-25f"), awkward / "the chip", dsp=True)
    assert built.bitstream.parent == awkward / "the chip"
    back = read_back(built)
    assert back.same_bits
    assert not back.differing
    images = memory_core.random_images(20, seed=1)
    row = compare_netlist(design, built.folder, images)
    assert (row["inputs"], row["mismatches"]) == (20, 0)
