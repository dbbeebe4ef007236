"""What a finished bitstream is and takes, on disk and as rows of a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpga_flow.records import Recorded
from fpga_flow.synthesis.cells import Cells, LayerCells
from fpga_flow.synthesis.synth import CORE_NETLIST, NETLIST
from fpga_flow.synthesis.tools import PACKAGES
from fpga_flow.targets import open_target


@dataclass(frozen=True)
class BitstreamReport(Recorded):
    """A bitstream and how it came about."""

    RECORD = "report.json"
    ABSENT = "holds no bitstream. Run `divqat compile` first."

    # Holds ``report.json``, ``netlist.v`` (the network's netlist), ``synth.json`` (the whole
    # chip's), what the family's ``Tools`` name (ECP5: ``chip.bit``, ``chip.svf`` and
    # ``design.config``, placed and routed as text) and ``logs/``
    folder: Path
    target: str  # the device's name, such as ``ecp5-85f``
    part: str  # its part number
    design_sha256: str  # ``Design.digest`` of what was built
    chip: str | None  # the host interface and board; None: only the network, with bare pins
    clock_mhz: float | None  # the clock asked for; None: none was
    # Highest clock of the network's clock domain that nextpnr's timing model allows
    fmax_mhz: float
    cells: Cells  # what synthesis made of the whole chip
    layers: tuple[LayerCells, ...]  # the same, layer by layer
    comb: int  # logic cells after packing
    placed_ff: int  # flip-flops after packing
    utilisation: Mapping[str, float]  # kind of cell -> fraction of the device's
    slowest_path: tuple[str, ...]  # layers the slowest path goes through, in order
    seed: int  # of nextpnr
    bitstream_bytes: int  # size of the bitstream
    seconds: Mapping[str, float]  # tool -> seconds it took
    versions: Mapping[str, str]  # package -> version

    @property
    def bitstream(self) -> Path:
        """The bitstream file."""
        return self.folder / open_target(self.target).family.tools.bitstream

    @property
    def needed(self) -> tuple[str, ...]:
        """Files of the folder beside the record."""
        tools = open_target(self.target).family.tools
        return CORE_NETLIST, NETLIST, tools.bitstream, *tools.more


def hardware_rows(
    report: BitstreamReport,
    variant: str,
    cycles_per_image: float | None = None,
    latency_cycles: float | None = None,
) -> list[dict[str, Any]]:
    """The ``hardware`` rows of results.json for a bitstream: one a stage.

    ``bram`` counts blocks of 18 Kibit. ``images_per_s`` is at the clock the chip runs at, or
    at Fmax where no clock was asked for; without ``cycles_per_image`` it is unknown.
    """
    clock = report.clock_mhz or report.fmax_mhz
    cells, seconds, versions = report.cells, report.seconds, report.versions
    tools = open_target(report.target).family.tools
    nextpnr = f"{tools.place} {versions[PACKAGES[tools.place]]}"
    common = {
        "variant": variant,
        "device": report.part,
        "cycles_per_image": cycles_per_image,
        "latency_cycles": latency_cycles,
        "bram": cells.bram,
        "dsp": cells.dsp,
        "lutram": cells.lutram,
        "chip": report.chip,
        "bitstream_bytes": None,
    }
    mapped = {
        "stage": "synthesis",
        "lut": cells.lut,
        "ff": cells.ff,
        "fmax_mhz": None,
        "images_per_s": None,
        "tool": f"yosys {versions['pyosys']}",
        "seconds": seconds["slang"] + seconds["yosys"],
    }
    placed = {
        "stage": "place_and_route",
        "lut": report.comb,
        "ff": report.placed_ff,
        "fmax_mhz": report.fmax_mhz,
        "clock_mhz": clock,
        "images_per_s": None if cycles_per_image is None else clock * 1e6 / cycles_per_image,
        "utilisation": dict(report.utilisation),
        "seed": report.seed,
        "tool": nextpnr,
        "seconds": seconds[tools.place],
    }
    packed = {
        "stage": "bitstream",
        "bitstream_bytes": report.bitstream_bytes,
        "tool": f"{tools.pack}, {nextpnr}",
        "seconds": sum(seconds.values()),
    }
    return [common | mapped, common | placed, common | placed | packed]
