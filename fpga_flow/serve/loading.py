"""What `divqat serve` puts behind the line: a QONNX file, or an exported victim of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction import Predictor
from divqat_brevitas.files import sha256_file
from divqat_brevitas.short_repr import ShortRepr


@dataclass(frozen=True)
class Served(ShortRepr):
    """A model ready to answer."""

    predictor: Predictor  # gives logits, or what a host makes of the chip's codes
    shape: tuple[int, ...]  # of an image, such as (C, H, W)
    classes: int  # how many it tells apart
    name: str  # for ``/info``
    identity: dict[str, Any]  # what the ledger counts the queries of; equal for every engine
    ledger: Path  # where its queries are counted, if nothing else is said


def load_served(path: Path, engine: str, variant: str | None) -> Served:
    """The model of a QONNX file, or of a run directory and its ``variant`` (None: the only one)."""
    from fpga_flow.engines import load_engine
    from fpga_flow.lowering import lower

    if path.is_dir():
        return _of_run(path, engine, variant)
    if variant is not None:
        raise InputError(f"--victim chooses a victim of a run; {path} is no run directory.")
    network = lower(path)
    return Served(
        load_engine(path, engine),
        network.input_shape,
        network.classes,
        path.name,
        {"model": sha256_file(path), "answer": "logits"},
        path.with_name(f"{path.stem}.queries.sqlite"),
    )


def _of_run(path: Path, engine: str, variant: str | None) -> Served:
    from fpga_flow.console import Progress
    from fpga_flow.lowering import lower
    from fpga_flow.pipeline.rundir import RunDirectory
    from fpga_flow.pipeline.stages.context import StageContext
    from fpga_flow.pipeline.stages.victims import answer_of, chip_unit, first_seed, predictor

    run = RunDirectory.existing(path)
    config = run.config()
    victims = {victim.stem: victim for victim in first_seed(config)}
    if variant is None and len(victims) != 1:
        raise InputError(
            f"{path} has several victims: choose one with --victim {' | --victim '.join(victims)}."
        )
    name = variant or next(iter(victims))
    if name not in victims:
        raise unknown_name("victim", name, victims)
    victim = victims[name]
    file = path / victim.attacked
    if not file.is_file():
        raise InputError(f"{file} is not there yet: `divqat run --out {path} --until export`.")
    context = StageContext("serve", run, config, Progress(), frozenset({"train", "compile"}))
    answer = answer_of(config, victim)
    unit = chip_unit(context, victim)
    network = lower(file)
    return Served(
        predictor(context, victim, engine, unit),
        network.input_shape,
        network.classes,
        f"{path.name}/{name}",
        {"model": sha256_file(file), "answer": answer},
        path / "serve" / f"{name}.queries.sqlite",
    )
