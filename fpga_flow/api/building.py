"""`divqat compile model.onnx` as a function: from a QONNX file to a bitstream."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.api.overrides import Overrides, texts
from fpga_flow.console import Progress
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.stages import hardware
from fpga_flow.report.schema import HardwareRow, parse

if TYPE_CHECKING:
    from fpga_flow.engines import Engine


@dataclass(frozen=True)
class HardwareBuild(ShortRepr):
    """Hardware made of a QONNX file.

    Attributes:
        model: the file.
        folder: everything that was built.
        rows: what each tool says of size and speed, from the estimate to the furthest stage.
    """

    model: Path
    folder: Path
    rows: tuple[HardwareRow, ...]

    @property
    def bitstream(self) -> Path | None:
        """The bitstream's file; None where the build stopped before, or a board's tool made it."""
        report = self.folder / hardware.BITSTREAM / "report.json"
        if not report.is_file():
            return None
        from fpga_flow.synthesis import BitstreamReport

        return BitstreamReport.load(report.parent).bitstream

    def engine(self, name: str = "rtl") -> "Engine":
        """The built hardware, or another description of the same network, as an engine.

        Args:
            name: "rtl" (the design in Verilator), "netlist" (after synthesis, in Verilator),
                "finn" (FINN's graph), "integer" or "qonnx" (the file itself).

        Raises:
            InputError: an unknown name, or the build stopped before that.
            ToolMissingError: the engine's packages are not installed.
        """
        from fpga_flow.engines import load_engine

        design = self.folder / hardware.DESIGN
        match name:
            case "rtl" | "netlist" if not (design / "design.json").is_file():
                raise InputError(
                    f"{self.folder} holds no hardware design: the build stopped at its estimate. "
                    "Build again, until the stage rtl or bitstream."
                )
            case "rtl":
                return load_engine(design, "rtl")
            case "netlist":
                from fpga_flow.engines.netlist import NetlistEngine
                from fpga_flow.rtl import Design

                return NetlistEngine(Design.load(design), self.folder / hardware.BITSTREAM)
            case "finn":
                return load_engine(self.folder, "finn")
            case "integer" | "qonnx":
                return load_engine(self.model, name)
        raise unknown_name("engine", name, ("rtl", "netlist", "finn", "integer", "qonnx"))


def build(
    model: Path | str,
    target: str | None = None,
    *,
    out: Path | str,
    until: str | None = None,
    overrides: Overrides = (),
    progress: Progress | None = None,
) -> HardwareBuild:
    """Make hardware of a QONNX file: `divqat compile model.onnx` as a function.

    Args:
        model: a QONNX file.
        target: device or board, such as "ecp5-85f"; None: what the settings have, and only RTL.
        out: folder for everything that is built.
        until: "estimate", "rtl" or "bitstream"; None: a bitstream where a target is named.
        overrides: changed settings of [compile], such as ``{"compile.target_fps": 100}``.
        progress: where the lines about progress go; stderr where it is None.

    Raises:
        InputError: no file, an unknown target or setting, a layer without hardware.
        CheckFailedError: the design does not fit the device or misses its clock.
        ToolMissingError: finn-plus, yosys, nextpnr or Vivado is needed and not installed.

    Example:
        >>> design = build("model.onnx", target="ecp5-85f", out="chip", until="estimate")
        >>> [(row.stage, row.device) for row in design.rows][-1]  # our cost model
        ('estimate', 'LFE5U-85F-6CABGA381')
        >>> design = build("model.onnx", target="ecp5-85f", out="chip")  # doctest: +SKIP
        >>> design.bitstream.name, design.engine("rtl").predict(images).shape  # doctest: +SKIP
        ('chip.bit', (64, 10))
    """
    model, out = Path(model), Path(out)
    if not model.is_file():
        raise InputError(f"there is no file {model}. Export one with fpga_flow.export_qonnx.")
    changes = texts(overrides)
    if target is not None:
        changes.append(f"compile.target={target}")
    if until is not None or target is not None:
        changes.append(f"compile.until={until or 'bitstream'}")
    settings = resolve(overrides=changes)
    rows = hardware.build_all(model, out, settings.compile, progress or Progress())
    return HardwareBuild(model, out, tuple(parse(HardwareRow, row, str(out)) for row in rows))
