"""A small chip to a Gowin bitstream, with the real tools. Nothing of it ran on a board."""

import pytest
from small_core import small_design

from divqat_brevitas.errors import InputError
from fpga_flow.engines.netlist import NetlistEngine
from fpga_flow.host.chip import write_chip
from fpga_flow.report.schema import HardwareRow, parse
from fpga_flow.synthesis import BitstreamReport, build_bitstream, hardware_rows
from fpga_flow.synthesis.cells import Cells
from fpga_flow.targets import open_target


@pytest.mark.slow  # the whole flow, once: yosys, nextpnr in WebAssembly, Apicula's packer
def test_a_small_chip_for_the_tang_nano_20k(tmp_path):
    device = open_target("tang-nano-20k")
    design = small_design(tmp_path / "design")
    chip = write_chip(design, tmp_path / "chip", board=device.board, clock_mhz=54.0)
    built = build_bitstream(design, device, tmp_path / "bits", chip=chip.for_synthesis())
    assert BitstreamReport.load(built.folder) == built
    assert built.bitstream.name == "chip.fs"
    # Apicula writes the frames as lines of zeros and ones, behind comments.
    lines = built.bitstream.read_text().split()
    assert sum(set(line) == {"0", "1"} for line in lines) > 1000
    assert (built.part, built.chip) == ("GW2AR-LV18QN88C8/I7", "uart, tang-nano-20k")
    assert built.fmax_mhz >= 54.0
    assert built.cells.lut <= built.comb
    assert sum(layer.cells.ff for layer in built.layers) == built.cells.ff <= built.placed_ff
    assert 0 < built.utilisation["lut"] < 0.1
    rows = hardware_rows(built, "tiny", cycles_per_image=100)
    assert [parse(HardwareRow, row, "row").stage for row in rows][-1] == "bitstream"
    assert rows[-1]["tool"].startswith("gowin_pack, nextpnr-himbaechel-gowin 0.")


def test_a_netlist_without_models_of_its_cells_is_refused(tmp_path):
    design = small_design(tmp_path / "design")
    report = BitstreamReport(
        folder=tmp_path,
        target="tang-nano-20k",
        part="GW2AR-LV18QN88C8/I7",
        design_sha256=design.digest,
        chip=None,
        clock_mhz=None,
        fmax_mhz=100.0,
        cells=Cells(),
        layers=(),
        comb=1,
        placed_ff=1,
        utilisation={},
        slowest_path=(),
        seed=1,
        bitstream_bytes=1,
        seconds={},
        versions={},
    )
    report.save()
    assert report.needed == ("netlist.v", "synth.json", "chip.fs")
    for name in report.needed:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="no models of the cells of tang-nano-20k"):
        NetlistEngine(design, tmp_path)
