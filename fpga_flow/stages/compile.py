"""Compile: each chosen victim of the first seed through FINN, one cell a victim.

Reads export/<variant>.onnx. Writes compile/<variant>/: FINN's models, estimates.json,
rtl/, finn.log, and hardware.json for the report.
"""

from functools import partial

from divqat_brevitas.files import sha256_file, write_json
from fpga_flow.compile import CompileSettings, compile_finn, hardware_rows
from fpga_flow.config import Config
from fpga_flow.stages.context import StageContext
from fpga_flow.stages.victims import VictimId, first_seed


def compiled(config: Config) -> list[VictimId]:
    """The victims that get hardware: another seed's would cost the same."""
    chosen = config.compile.variants
    return [v for v in first_seed(config) if not chosen or v.variant in chosen]


def check(config: Config) -> None:
    """Refuse impossible settings before anything is trained."""
    _settings(config)


def run(context: StageContext) -> None:
    """Build every chosen victim that has no build yet."""
    folding = context.config.compile.folding
    for victim in context.progress.track(compiled(context.config), "FINN builds"):
        key = {
            "onnx": context.hash(victim.attacked),
            "settings": context.config.compile.model_dump(mode="json", exclude={"variants"}),
            "folding": sha256_file(folding) if folding else None,
        }
        context.cell(victim.stem, key, [victim.stem], partial(_build, context, victim))


def _build(context: StageContext, victim: VictimId) -> None:
    folder = context.folder / victim.stem
    build = compile_finn(context.upstream(victim.attacked), folder, _settings(context.config))
    write_json(folder / "hardware.json", hardware_rows(build, victim.variant))


def _settings(config: Config) -> CompileSettings:
    chosen = config.compile
    return CompileSettings(
        board=chosen.board,
        clock_ns=chosen.clock_ns,
        target_fps=chosen.target_fps,
        folding_json=chosen.folding,
    )
