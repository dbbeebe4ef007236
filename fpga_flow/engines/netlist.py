"""The netlist after synthesis, simulated: the very cells that are placed into the bitstream."""

import importlib.util
import shutil
import tempfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError, ToolMissingError
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.rtl.design import Design
from fpga_flow.synthesis.bitstream_report import BitstreamReport
from fpga_flow.synthesis.synth import CORE_NETLIST
from fpga_flow.targets import open_target

# yosys' own models of the cells it maps to; its black boxes are ours. Of a module that comes twice
# Verilator takes the first: ours of the look-up tables.
_OUR_MODELS = ("LUT4.sv", "DP16KD.sv", "MULT18X18D.sv")
_YOSYS_MODELS = ("common_sim.vh", "ccu2c_sim.vh")


class NetlistEngine(RtlEngine):
    """Simulates a network's netlist in Verilator, cell by cell: LUTs, carries, RAMs, flip-flops.

    Slower than ``RtlEngine`` by one to two orders of magnitude, and of the same integers and
    cycles unless synthesis is wrong.

    Args:
        design: what the bitstream was made of.
        bitstream: the folder that ``build_bitstream`` made.
        threads: processes; None: one a core.
        idle: fraction of cycles in which no input is offered, and ``back_pressure``, no output
            taken; ``seed``: of those cycles. As for ``RtlEngine``.

    Raises:
        InputError: no bitstream is there, it is of another design, or its device is of a family
            whose cells have no models here (Gowin).
        ToolMissingError: Verilator, a C++ compiler or pyosys (its models of the cells) is missing.

    Example:
        >>> with NetlistEngine(design, Path("bits")) as netlist:  # doctest: +SKIP
        ...     logits = netlist.predict(images)
    """

    name = "netlist"

    def __init__(
        self,
        design: Design,
        bitstream: Path | str,
        *,
        threads: int | None = None,
        idle: float = 0.0,
        back_pressure: float = 0.0,
        seed: int = 0,
    ) -> None:
        report = BitstreamReport.load(Path(bitstream))
        if report.design_sha256 != design.digest:
            raise InputError(
                f"{report.folder} was made of another design than {design.folder}. "
                "Run `divqat compile` again."
            )
        device = open_target(report.target)
        if not device.family.netlist_models:
            raise InputError(
                f"The netlist of {report.folder} cannot be simulated: there are no models of the "
                f"cells of {device.name} ({device.part}). Simulate the RTL and the chip, or build "
                "for another device, such as ecp5-85f."
            )
        self._folder = tempfile.TemporaryDirectory(prefix="divqat-netlist-")
        cells = as_design(design, report.folder / CORE_NETLIST, Path(self._folder.name))
        super().__init__(cells, threads=threads, idle=idle, back_pressure=back_pressure, seed=seed)


def as_design(design: Design, netlist: Path, folder: Path) -> Design:
    """A design whose sources are ``netlist`` and models of its cells, in ``folder``.

    Raises:
        ToolMissingError: pyosys, which brings models, is not installed.
    """
    shutil.copyfile(netlist, folder / netlist.name)
    sources = [netlist.name, *_OUR_MODELS]
    for name in _OUR_MODELS:
        text = files("fpga_flow.engines").joinpath("sv", name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
    for path in _yosys_models().glob("*.vh"):
        shutil.copyfile(path, folder / path.name)
    for name in _YOSYS_MODELS:
        # The suffix makes Verilator read it as Verilog.
        shutil.copyfile(folder / name, folder / f"{name}.v")
        sources.append(f"{name}.v")
    return replace(design, folder=folder, sources=tuple(sources), data=())


def compare_netlist(
    design: Design, bitstream: Path, images: npt.NDArray[np.float32], **stalls: float
) -> dict[str, Any]:
    """Compare every last accumulator, or answer code, of ``images`` between RTL and netlist.

    Args:
        design: the RTL.
        bitstream: the folder that ``build_bitstream`` made of it.
        images: float32 (N, *input_shape) in the input range.
        stalls: ``idle`` and ``back_pressure`` of the netlist's simulation.

    Returns:
        A row of the equivalence table: ``a``, ``b``, ``inputs``, ``mismatches`` (images with
        any differing integer), ``unit``.
    """
    with RtlEngine(design) as rtl:
        expected = rtl.answers(images)
    idle, back_pressure = stalls.get("idle", 0.0), stalls.get("back_pressure", 0.0)
    with NetlistEngine(design, bitstream, idle=idle, back_pressure=back_pressure) as netlist:
        found = netlist.answers(images)
    return {
        "a": "rtl",
        "b": "netlist",
        "inputs": len(images),
        "mismatches": int((expected != found).any(axis=1).sum()),
        **design.compared,
    }


def _yosys_models() -> Path:
    found = importlib.util.find_spec("pyosys")
    if found is None or found.origin is None:
        raise ToolMissingError(
            "Simulating a netlist needs yosys' models of its cells, which the package pyosys "
            "brings. Install it with `pip install 'divqat[hardware]'`."
        )
    return Path(found.origin).parent / "share" / "lattice"
