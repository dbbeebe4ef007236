"""A chip of the open flow around a finished design: host interface, bitstream."""

from pathlib import Path

from fpga_flow.compile import FinnBuild
from fpga_flow.compile.prediction import fitting_advice
from fpga_flow.host.chip import write_chip
from fpga_flow.rtl import Design
from fpga_flow.synthesis import Shortfall, build_bitstream
from fpga_flow.targets import OpenTarget

CHIP = "chip"


def build_open_chip(folder: Path, device: OpenTarget, interface: str, clock_mhz: float) -> None:
    """Write chip/ and bitstream/ beside the design in ``folder``.

    Raises:
        NoBitstreamError: it does not fit, or misses the clock.
        ToolMissingError: yosys or nextpnr is not installed.
    """
    build, design = FinnBuild.load(folder), Design.load(folder / "design")
    chip = write_chip(design, folder / CHIP, interface=interface, clock_mhz=clock_mhz)

    def advice(short: Shortfall) -> str | None:
        return fitting_advice(build, device, short.over, folder) if short.over else None

    build_bitstream(design, device, folder / "bitstream", chip=chip.for_synthesis(), advice=advice)
