"""The smallest run with attacks: digits, one epoch, forty queries."""

from pathlib import Path
from typing import Any

from fakes import Silent

from divqat_brevitas.files import read_json
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.run import execute
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import order

SETTINGS = [
    "data.name=digits",
    "model.name=mlp",
    "train.variants=qat",
    "train.float_epochs=1",
    "train.quant_epochs=1",
    "attack.budgets=40",
    "attack.surrogates=mlp",
    "attack.epochs=1",
    "attack.oracles=soft",
    "attack.learners=soft",
]


def attack_rows(path: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train, export and attack; gives the rows of the attacks."""
    config = resolve(overrides=[*SETTINGS, *overrides])
    stages = [*order.STAGES[:2], order.STAGES[4]]
    execute(RunDirectory(path), config, stages, progress=Silent())
    return [read_json(file) for file in (path / "attack").glob("*.json")]
