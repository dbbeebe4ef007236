"""From a QONNX file to hardware: FINN's build, the stitched design, the bitstream.

Three steps, each whole on disk or not there, for the compile stage and for
`divqat compile model.onnx`.
"""

import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.files import read_json, write_json
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn
from fpga_flow.compile.configuration import VivadoSettings
from fpga_flow.compile.finn_build import hardware_rows as estimate_rows
from fpga_flow.compile.prediction import Prediction, fitting_advice, load_prediction
from fpga_flow.console import Progress
from fpga_flow.host.boards import find_board
from fpga_flow.lowering.answer import AnswerUnit
from fpga_flow.pipeline.config import CompileSection
from fpga_flow.rtl.refusals import refuse_without_rtl
from fpga_flow.targets import OpenTarget, VivadoTarget, target

if TYPE_CHECKING:
    from fpga_flow.rtl import Design

DESIGN = "design"
BITSTREAM = "bitstream"
CHIP = "chip"
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
        InputError: an unknown target; an interface that the open target's board has no pins for;
            ``fill`` or ``answer`` for a board that FINN builds for.
    """
    device = target(chosen.target)
    asked: dict[str, Any] = {
        "clock_ns": chosen.clock_ns or 1e3 / clock_mhz(chosen),
        "target_fps": chosen.target_fps,
        "folding_json": chosen.folding,
    }
    if isinstance(device, OpenTarget):
        if chosen.until == "bitstream":
            find_board(device.board).pins_for(chosen.interface)
        return CompileSettings(
            target=device.name, fill=chosen.fill, multipliers=chosen.multipliers, **asked
        )
    if chosen.answer != "logits":
        raise InputError(
            f"compile.answer is for devices of the open flow; {device.name} is built by stock "
            "FINN, which gives logits: leave compile.answer out, or choose another compile.target."
        )
    if chosen.fill is not None:
        raise InputError(
            f"compile.fill is for devices of the open flow; {device.name} is folded by FINN: "
            "set compile.target_fps or compile.folding."
        )
    return CompileSettings(board=device.board, **asked)


def build_finn(onnx: Path, folder: Path, chosen: CompileSection) -> FinnBuild:
    """FINN's build: graph, folding, estimates, RTL; an InputError names a layer without."""
    if chosen.until != "estimate" and isinstance(target(chosen.target), OpenTarget):
        refuse_without_rtl(onnx)
    return compile_finn(onnx, folder, finn_settings(chosen))


def build_design(folder: Path, answer: AnswerUnit | None = None) -> None:
    """The stitched design of the build in ``folder``, with FIFOs as deep as they need to be.

    Writes design/ and speed.json (cycles, simulated). Without Verilator the FIFOs keep their
    default depth and speed.json is empty. ``answer`` is the answer unit on the chip (None:
    accumulators).
    """
    from fpga_flow.rtl import DesignSettings, generate_design, restitch

    start = time.monotonic()
    settings = DesignSettings(answer=answer)
    design = generate_design(FinnBuild.load(folder), folder / DESIGN, settings)
    try:
        from fpga_flow.engines.fifos import size_fifos

        sizing = size_fifos(design)
    except ToolMissingError:
        write_json(folder / SPEED, {})
        return
    sized = restitch(design, folder / DESIGN, fifo_depths=sizing.depths)
    speed = _speed(sized) | {"fifo_bits": sizing.bits}
    write_json(folder / SPEED, speed | {"seconds": round(time.monotonic() - start, 2)})


def _speed(design: "Design") -> Row:
    """Cycles of the simulated design: they depend on no image's content."""
    from fpga_flow.engines.rtl import RtlEngine

    with RtlEngine(design, threads=1) as engine:
        low = design.input_step.declared.low
        timing = engine.measure(np.full((_TIMED_IMAGES, *design.input_shape), low, np.float32))
    return {
        "cycles_per_image": timing.interval_cycles,
        "latency_cycles": timing.latency_cycles,
        "images": timing.images,
        "fifos": {node.name: node.depth for node in design.nodes if node.depth is not None},
    }


def build_chip(onnx: Path, folder: Path, chosen: CompileSection) -> None:
    """The bitstream of the design in ``folder``, or for an AMD board stock FINN's build.

    Raises:
        CheckFailedError: it does not fit, or misses the clock; a folding that fits is named.
        ToolMissingError: yosys, nextpnr or Vivado is not installed.
    """
    device = target(chosen.target)
    if isinstance(device, OpenTarget):
        _build_open_chip(onnx, folder, device, chosen.interface, clock_mhz(chosen))
    else:
        from fpga_flow.vivado.handover import build_vivado

        settings = VivadoSettings(
            target=device.name,
            clock_ns=1e3 / clock_mhz(chosen),
            target_fps=chosen.target_fps,
            folding_json=chosen.folding,
        )
        build_vivado(onnx, folder / VIVADO, settings)


def _build_open_chip(
    onnx: Path, folder: Path, device: OpenTarget, interface: str, clock: float
) -> None:
    """Write chip/ (host interface, reference vectors) and bitstream/ beside the design."""
    from fpga_flow.engines.vectors import ReferenceVectors
    from fpga_flow.host.chip import write_chip
    from fpga_flow.rtl import Design
    from fpga_flow.synthesis import Shortfall, build_bitstream

    build, design = FinnBuild.load(folder), Design.load(folder / DESIGN)
    chip = write_chip(
        design, folder / CHIP, interface=interface, board=device.board, clock_mhz=clock
    )
    ReferenceVectors.of(onnx, design).save(chip.folder)

    def advice(short: Shortfall) -> str | None:
        return fitting_advice(build, device, short.over, folder) if short.over else None

    sources = chip.for_synthesis()
    build_bitstream(design, device, folder / BITSTREAM, chip=sources, advice=advice)


def rows(folder: Path, variant: str, chosen: CompileSection) -> list[Row]:
    """The ``hardware`` rows of everything that is in ``folder``, the furthest stage last."""
    build = FinnBuild.load(folder)
    found = estimate_rows(build, variant)
    device = target(chosen.target)
    prediction = load_prediction(build)
    if isinstance(device, OpenTarget) and prediction is not None:
        found.append(_predicted(prediction, variant, device, clock_mhz(chosen)))
    if (folder / BITSTREAM / "report.json").is_file():
        from fpga_flow.synthesis import BitstreamReport
        from fpga_flow.synthesis import hardware_rows as bitstream_rows

        report, speed = BitstreamReport.load(folder / BITSTREAM), read_json(folder / SPEED)
        cycles = (speed.get(name) for name in ("cycles_per_image", "latency_cycles"))
        found += bitstream_rows(report, variant, *cycles)
    return found


def _predicted(prediction: Prediction, variant: str, device: OpenTarget, clock: float) -> Row:
    """What our own models say, at the clock asked for."""
    cells = prediction.resources
    return {
        "variant": variant,
        "device": device.part,
        "stage": "estimate",
        "lut": round(cells.lut),
        "ff": round(cells.ff),
        "bram": round(cells.bram),
        "dsp": round(cells.dsp),
        "fmax_mhz": None,
        "cycles_per_image": prediction.cycles_per_image,
        "images_per_s": clock * 1e6 / prediction.cycles_per_image,
        "bitstream_bytes": None,
        "tool": f"divqat {metadata.version('divqat')} cost model{device.family.estimate}",
        "latency_cycles": prediction.latency,
        "clock_mhz": clock,
    }


def build_all(onnx: Path, out: Path, chosen: CompileSection, progress: Progress) -> list[Row]:
    """Everything up to ``chosen.until``, step by step; returns the hardware rows."""
    unit = None
    if chosen.answer != "logits":
        from fpga_flow.pipeline.stages.victims import chip_answer

        unit = chip_answer(onnx, chosen)
    progress.log(f"compile: FINN's build of {onnx.name}")
    build_finn(onnx, out, chosen)
    if chosen.until != "estimate" and isinstance(target(chosen.target), OpenTarget):
        progress.log("compile: one design, FIFOs sized by simulation")
        build_design(out, unit)
    if chosen.until == "bitstream":
        progress.log(f"compile: bitstream for {chosen.target}")
        build_chip(onnx, out, chosen)
    return rows(out, onnx.stem, chosen)
