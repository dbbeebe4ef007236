"""Compile: each chosen victim of the first seed to hardware, three cells a victim.

Reads export/<variant>.onnx. Writes compile/<variant>/: FINN's models, estimates.json, rtl/,
finn.log; design/ (the stitched SystemVerilog) and speed.json; chip/ and bitstream/; and
hardware.json for the report.
"""

from collections.abc import Callable, Sequence
from functools import partial

from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.files import sha256_file, write_json
from fpga_flow.compile.targets import OpenTarget, target
from fpga_flow.config import Config
from fpga_flow.stages import hardware
from fpga_flow.stages.context import StageContext
from fpga_flow.stages.victims import VictimId, first_seed

_FINN = (
    "build.json",
    "models",
    "estimates.json",
    "folding.json",
    "rtl",
    "report",
    "finn.log",
)
_OPEN = ("chip", "bitstream")


def compiled(config: Config) -> list[VictimId]:
    """The victims that get hardware: another seed's would cost the same."""
    chosen = config.compile.variants
    return [v for v in first_seed(config) if not chosen or v.variant in chosen]


def check(config: Config) -> None:
    """Refuse impossible settings before anything is trained."""
    hardware.finn_settings(config.compile)


def run(context: StageContext) -> None:
    """Build what is not built yet; a tool that lacks stops only the steps that need it."""
    missing: ToolMissingError | None = None
    for victim in context.progress.track(compiled(context.config), "victims compiled"):
        try:
            _build(context, victim)
        except ToolMissingError as e:
            missing = e
        folder = context.folder / victim.stem
        if (folder / "build.json").is_file():
            rows = hardware.rows(folder, victim.variant, context.config.compile)
            write_json(context.output(f"{victim.stem}/hardware.json"), rows)
    if missing is not None:
        raise missing


def _build(context: StageContext, victim: VictimId) -> None:
    chosen = context.config.compile
    folder = context.folder / victim.stem
    onnx = context.upstream(victim.attacked)
    folded = ("target", "clock_ns", "target_fps", "fill")
    key = {
        "onnx": context.hash(victim.attacked),
        "settings": {name: getattr(chosen, name) for name in folded},
        "folding": sha256_file(chosen.folding) if chosen.folding else None,
    }

    def cell(name: str, outputs: Sequence[str], work: Callable[[], None]) -> None:
        paths = [f"{victim.stem}/{output}" for output in outputs]
        context.cell(f"{victim.stem}{name}", key, paths, work)

    def finn() -> None:
        hardware.build_finn(onnx, folder, chosen)

    cell("", _FINN, finn)
    is_open = isinstance(target(chosen.target), OpenTarget)
    if chosen.until != "estimate" and is_open:
        context.progress.log(f"compile: {victim.stem}: one design, FIFOs sized by simulation")
        cell("-design", ("design", hardware.SPEED), partial(hardware.build_design, folder))
    if chosen.until == "bitstream":
        context.progress.log(f"compile: {victim.stem}: bitstream for {chosen.target}")
        key["interface"] = chosen.interface
        outputs = _OPEN if is_open else (hardware.VIVADO,)
        cell("-bitstream", outputs, partial(hardware.build_chip, onnx, folder, chosen))
