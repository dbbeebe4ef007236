"""From a QONNX file to hardware: FINN's build, the stitched design, the bitstream.

Three steps, each whole on disk or not there, for the compile stage and for
`divqat compile model.onnx`.
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.files import read_json, write_json
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn
from fpga_flow.compile.build import hardware_rows as estimate_rows
from fpga_flow.compile.targets import OpenTarget, VivadoTarget, target
from fpga_flow.config import CompileSection
from fpga_flow.console import Progress

if TYPE_CHECKING:
    from fpga_flow.rtl import Design

DESIGN = "design"
BITSTREAM = "bitstream"
VIVADO = "vivado"
SPEED = "speed.json"
_DEFAULT_MHZ = {OpenTarget: 50.0, VivadoTarget: 100.0}
_TIMED_IMAGES = 6
Row = dict[str, Any]


def clock_mhz(chosen: CompileSection) -> float:
    """The clock asked for, or the target's usual one."""
    if chosen.clock_ns is not None:
        return 1e3 / chosen.clock_ns
    return _DEFAULT_MHZ[type(target(chosen.target))]


def finn_settings(chosen: CompileSection) -> CompileSettings:
    """What FINN is asked for; for an open target our solver folds.

    Raises:
        InputError: an unknown target, or ``fill`` for a board that FINN folds for.
    """
    device = target(chosen.target)
    clock_ns = chosen.clock_ns or 1e3 / clock_mhz(chosen)
    if isinstance(device, OpenTarget):
        return CompileSettings(
            target=device.name,
            clock_ns=clock_ns,
            target_fps=chosen.target_fps,
            fill=chosen.fill,
            folding_json=chosen.folding,
        )
    if chosen.fill is not None:
        raise InputError(
            f"compile.fill is for devices of the open flow; {device.name} is folded by FINN: "
            "set compile.target_fps or compile.folding."
        )
    return CompileSettings(
        board=device.board,
        clock_ns=clock_ns,
        target_fps=chosen.target_fps,
        folding_json=chosen.folding,
    )


def build_finn(onnx: Path, folder: Path, chosen: CompileSection) -> FinnBuild:
    """FINN's build: graph, folding, estimates, RTL of every layer."""
    return compile_finn(onnx, folder, finn_settings(chosen))


def build_design(folder: Path) -> None:
    """The stitched design of the build in ``folder``, with FIFOs as deep as they need to be.

    Writes design/ and speed.json (cycles, simulated). Without Verilator the FIFOs keep their
    default depth and speed.json is not written.
    """
    from fpga_flow.rtl import generate_design

    design = generate_design(FinnBuild.load(folder), folder / DESIGN)
    with suppress(ToolMissingError):
        write_json(folder / SPEED, _speed(design))


def _speed(design: "Design") -> Row:
    """Cycles of the simulated design: they depend on no image's content."""
    from fpga_flow.simulate.rtl import RtlEngine

    with RtlEngine(design, threads=1) as engine:
        timing = engine.measure(np.zeros((_TIMED_IMAGES, *design.input_shape), np.float32))
    return {
        "cycles_per_image": timing.interval_cycles,
        "latency_cycles": timing.latency_cycles,
        "images": timing.images,
    }


def build_chip(folder: Path, chosen: CompileSection) -> None:
    """The bitstream of the design in ``folder``, or for an AMD board FINN's own build.

    Raises:
        CheckFailedError: it does not fit, or misses the clock; a folding that fits is named.
        ToolMissingError: yosys, nextpnr or Vivado is not installed.
    """
    device = target(chosen.target)
    if isinstance(device, OpenTarget):
        from fpga_flow.stages.open_chip import build_open_chip

        build_open_chip(folder, device, chosen.interface, clock_mhz(chosen))


def rows(folder: Path, variant: str) -> list[Row]:
    """The ``hardware`` rows of everything that is in ``folder``."""
    found = estimate_rows(FinnBuild.load(folder), variant)
    if (folder / BITSTREAM / "report.json").is_file():
        from fpga_flow.synthesis import BitstreamReport
        from fpga_flow.synthesis import hardware_rows as bitstream_rows

        speed = read_json(folder / SPEED) if (folder / SPEED).is_file() else {}
        found += bitstream_rows(
            BitstreamReport.load(folder / BITSTREAM),
            variant,
            speed.get("cycles_per_image"),
            speed.get("latency_cycles"),
        )
    return found


def build_all(onnx: Path, out: Path, chosen: CompileSection, progress: Progress) -> list[Row]:
    """Everything up to ``chosen.until``, one step after the other; returns the hardware rows."""
    progress.log(f"compile: FINN's build of {onnx.name}")
    build_finn(onnx, out, chosen)
    if chosen.until != "estimate" and isinstance(target(chosen.target), OpenTarget):
        progress.log("compile: one design, FIFOs sized by simulation")
        build_design(out)
    if chosen.until == "bitstream":
        progress.log(f"compile: bitstream for {chosen.target}")
        build_chip(out, chosen)
    return rows(out, onnx.stem)
