"""The six stages in order: what each depends on. Their bodies are imported when they run.

train -> export -> compile -> simulate -> attack -> report
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.stages.context import Stage


def _lazy(module: str, name: str) -> Callable[[Any], Any]:
    def call(argument: Any) -> Any:
        return getattr(import_module(f"fpga_flow.pipeline.stages.{module}"), name)(argument)

    return call


def _built_from(config: Config) -> list[Path]:
    chosen = config.compile
    return [file for file in (chosen.folding, chosen.answer_key) if file]


def _answer_key(config: Config) -> list[Path]:
    return [config.compile.answer_key] if config.compile.answer_key else []


_VICTIMS = ("data", "model", "train", "divqat", "run.seeds")

STAGES = (
    Stage("train", _VICTIMS, _lazy("train", "run"), check=_lazy("train", "check")),
    Stage("export", (*_VICTIMS, "export"), _lazy("export", "run"), needs=("train",)),
    Stage(
        "compile",
        ("train.variants", "run.seeds", "compile"),
        _lazy("compile", "run"),
        needs=("export",),
        check=_lazy("compile", "check"),
        files=_built_from,
    ),
    Stage(
        "simulate",
        (*_VICTIMS, "compile.variants", "simulate"),
        _lazy("simulate", "run"),
        needs=("train", "export"),
        uses=("compile",),
    ),
    Stage(
        "attack",
        (*_VICTIMS, "compile.variants", "compile.answer", "compile.answer_key", "attack"),
        _lazy("attack", "run"),
        needs=("train", "export"),
        uses=("compile",),
        check=_lazy("attack", "check"),
        files=_answer_key,
        ahead=_lazy("attack", "ahead"),
    ),
    # The page shows all settings.
    Stage(
        "report",
        tuple(Config.model_fields),
        _lazy("report", "run"),
        needs=("train",),
        uses=("export", "compile", "simulate", "attack"),
    ),
)
