"""Compile: each chosen victim of the first seed to hardware, three tasks a victim.

Reads export/<variant>.onnx. Writes compile/<variant>/: FINN's models, estimates.json, rtl/,
finn.log; design/ (the stitched SystemVerilog) and speed.json; chip/ and bitstream/; and
hardware.json for the report. Where something else than logits is to leave the chip, answer.json
says what; its step is chosen from training images.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from divqat_brevitas.data import dataset_info
from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.files import sha256_file, write_json
from fpga_flow.lowering.answer import AnswerUnit, check_answer
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.stages import hardware
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import (
    ANSWER,
    VictimId,
    answer_key,
    chip_answer,
    first_seed,
    recipe_of,
    split,
)
from fpga_flow.targets import OpenTarget, target

_FINN = (
    "build.json",
    "models",
    "estimates.json",
    "folding.json",
    "rtl",
    "report",
    "finn.log",
)


def compiled(config: Config) -> list[VictimId]:
    """The victims that get hardware: another seed's would cost the same."""
    chosen = config.compile.variants
    return [v for v in first_seed(config) if not chosen or v.variant in chosen]


def check(config: Config) -> None:
    """Refuse impossible settings before anything is trained."""
    hardware.finn_settings(config.compile)
    answer = config.compile.answer
    if answer == "logits":
        return
    answer_key(config.compile)
    for victim in compiled(config):
        outputs = len(dataset_info(config.data.name).classes)
        rejects = recipe_of(config, victim).reject_output
        if answer.startswith("reject") and not rejects:
            raise InputError(
                f"compile.answer: {answer!r} is of a network with a reject output, and "
                f"{victim.variant} has none. Compile only divqat (compile.variants), trained with "
                "divqat.preset=reject or reject-photos."
            )
        check_answer(answer, outputs + rejects)


def run(context: StageContext) -> None:
    """Build what is not built yet; a missing tool stops only the steps that need it."""
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
    from fpga_flow.integer.engine import IntegerEngine
    from fpga_flow.integer.gate import refuse

    chosen = context.config.compile
    folder = context.folder / victim.stem
    onnx = context.upstream(victim.attacked)
    refuse(IntegerEngine(onnx).differences)  # every level of the build is compared with it
    folded = ("target", "clock_ns", "target_fps", "fill")
    key = {
        "onnx": context.hash(victim.attacked),
        "settings": {name: getattr(chosen, name) for name in folded},
        "folding": sha256_file(chosen.folding) if chosen.folding else None,
    }

    def task(name: str, outputs: Sequence[str], work: Callable[[], object], **more: str) -> None:
        paths = [f"{victim.stem}/{output}" for output in outputs]
        context.task(f"{victim.stem}{name}", {**key, **more}, paths, work)

    task("", _FINN, partial(hardware.build_finn, onnx, folder, chosen))
    unit, answer = None, {}
    if chosen.answer != "logits":
        answer = {"answer": chosen.answer, "data": context.config.fingerprint("data")}
        if chosen.answer_key is not None:
            answer["key"] = sha256_file(chosen.answer_key)
        file = folder / ANSWER
        task("-answer", (ANSWER,), partial(_write_answer, context.config, onnx, file), **answer)
        unit = AnswerUnit.load(file)
    is_open = isinstance(target(chosen.target), OpenTarget)
    if chosen.until != "estimate" and is_open:
        context.progress.log(f"compile: {victim.stem}: one design, FIFOs sized by simulation")
        work = partial(hardware.build_design, folder, unit)
        task("-design", ("design", hardware.SPEED), work, **answer)
    if chosen.until == "bitstream":
        context.progress.log(f"compile: {victim.stem}: bitstream for {chosen.target}")
        outputs = (hardware.CHIP, hardware.BITSTREAM) if is_open else (hardware.VIVADO,)
        work = partial(hardware.build_chip, onnx, folder, chosen)
        task("-bitstream", outputs, work, interface=chosen.interface, **answer)


def _write_answer(config: Config, onnx: Path, file: Path) -> None:
    """The answer unit of a network, calibrated on the first training images."""
    unit = chip_answer(onnx, config.compile, split(config, "train")[0])
    write_json(file, asdict(unit))
