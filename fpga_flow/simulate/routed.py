"""The placed and routed chip, simulated from the host's bytes."""

import tempfile
from importlib.resources import files
from pathlib import Path

from divqat_brevitas.errors import InputError
from fpga_flow.host.chip import Chip
from fpga_flow.host.driver import ChipDriver
from fpga_flow.host.engine import ChipEngine
from fpga_flow.rtl.design import Design
from fpga_flow.simulate.chip import SimTransport, chip_timeout
from fpga_flow.simulate.verilator import verilate
from fpga_flow.synthesis.report import BitstreamReport
from fpga_flow.synthesis.routed import ROUTED, routed_verilog

_MODELS = ("DP16KD.sv", "MULT18X18D.sv")
_DRIVER = Path(__file__).parent / "cpp" / "chip.cpp"


def simulate_routed(design: Design, chip: Chip, bitstream: Path) -> ChipEngine:
    """An engine that runs images on the chip as nextpnr placed and routed it.

    Every cell is what the bitstream programs; the clock is the pin's, without the PLL. Slow:
    a serial line takes its real number of clock cycles a bit.

    Args:
        design: what the chip holds.
        chip: as ``write_chip`` gave, with a serial line.
        bitstream: the folder that ``build_bitstream`` made of both.

    Raises:
        InputError: the bitstream is of another design.
        CheckFailedError: it has a cell that is not modelled.
        ToolMissingError: Verilator or g++ is not installed.
    """
    report = BitstreamReport.load(bitstream)
    if report.design_sha256 != design.digest or chip.design_digest != design.digest:
        raise InputError(
            f"{report.folder} was made of another design than {design.folder}. "
            "Run `divqat compile` again."
        )
    with tempfile.TemporaryDirectory(prefix="divqat-routed-") as name:
        folder = Path(name)
        source = f"{chip.top}.v"
        (folder / source).write_text(routed_verilog(report.folder / ROUTED, chip.top))
        for model in _MODELS:
            text = files("fpga_flow.simulate").joinpath("sv", model).read_text(encoding="utf-8")
            (folder / model).write_text(text, encoding="utf-8")
        line = {
            "DIVQAT_FT245": int(chip.interface == "ft245"),
            "DIVQAT_PERIOD_PS": 1e6 / chip.clock_mhz,
        }
        executable = verilate(
            folder,
            (source, *_MODELS),
            chip.top,
            driver=_DRIVER,
            defines=(f"DIVQAT_DIVIDER={chip.divider}",),
            headers={"line.h": "".join(f"#define {k} {v}\n" for k, v in line.items())},
        )
    transport = SimTransport(executable, design.folder, chip_timeout(design, chip))
    return ChipEngine(design, ChipDriver(transport, design))
