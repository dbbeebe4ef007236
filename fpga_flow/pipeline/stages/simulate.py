"""Simulate: the ladder torch -> QONNX -> integers -> every FINN step, and RTL -> netlist, chip.

Reads train/, export/ and, where it is done, compile/. Writes simulate/equivalence.json,
simulate/accuracy.json, and what they are made of, one file a victim of the first seed.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from divqat_brevitas.data import query_pool
from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.extraction import accuracy
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.files import read_json, write_json
from fpga_flow.export import compare
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import refuse
from fpga_flow.lowering import lower
from fpga_flow.lowering.ir import IntArray
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import (
    ANSWER,
    Images,
    VictimId,
    compiled_answer,
    exported,
    first_seed,
    predictor,
    split,
)

if TYPE_CHECKING:
    from fpga_flow.rtl import Design

Row = dict[str, Any]
# Fractions of the clock cycles in which no input is offered, or no output taken.
_STALLS = 0.3
_BUILT = ("build.json", "design/design.json", "bitstream/report.json", "chip/chip.json")


def run(context: StageContext) -> None:
    """Compare and measure every victim, then refuse the run if any integer differed.

    Raises:
        CheckFailedError: two engines disagree; the rows that say so are written first.
    """
    found = {}
    for victim in context.progress.track(first_seed(context.config), "victims simulated"):
        key = {
            "onnx": context.hash(victim.attacked),
            "weights": context.hash(f"export/{victim.stem}.safetensors"),
            "data": context.config.fingerprint("data"),
            "simulate": context.config.fingerprint("simulate"),
            "built": [_hash(context, victim, name) for name in _BUILT],
        }
        answer = compiled_answer(context, victim)
        if answer is not None:
            key["answer"] = context.hash(f"compile/{victim.stem}/{ANSWER}")
        name = f"{victim.stem}.json"
        context.task(victim.stem, key, [name], partial(_simulate, context, victim))
        found[victim.variant] = read_json(context.folder / name)
    rows = [row for part in found.values() for row in part["equivalence"]]
    write_json(context.output("equivalence.json"), rows)
    accuracies = {variant: part["accuracy"] for variant, part in found.items()}
    write_json(context.output("accuracy.json"), accuracies)
    for row in rows:
        if faults := row["mismatches"] - row.get("by_noise", 0):
            where = f", first in {row['first_layer']}" if row.get("first_layer") else ""
            raise CheckFailedError(
                f"{row['variant']}: {row['a']} and {row['b']} disagree on {faults} of "
                f"{row['inputs']} inputs{where}. The numbers are in "
                f"{context.folder / 'equivalence.json'}."
            )


def _simulate(context: StageContext, victim: VictimId) -> None:
    images = equivalence_inputs(context.config, context.config.simulate.inputs)
    rows = _software_rows(context, victim, images) + _finn_rows(context, victim, images)
    rows += _hardware_rows(context, victim)
    engine = context.config.simulate.engine
    test, labels = split(context.config, "test")
    answer = compiled_answer(context, victim)
    measured = accuracy(predictor(context, victim, engine, answer), test, labels)
    write_json(
        context.folder / f"{victim.stem}.json",
        {
            "equivalence": [{"variant": victim.variant, **row} for row in rows],
            "accuracy": {
                "accuracy_engine": measured,
                "engine": engine,
                "inputs": len(test),
                "seed": victim.seed,
                **({"answer": answer.name} if answer else {}),
            },
        },
    )


def equivalence_inputs(config: Config, count: int) -> Images:
    """Test images, and where there are too few, synthetic noise and shapes behind them."""
    images = split(config, "test")[0][:count]
    missing = count - len(images)
    if missing == 0:
        return images
    noise = query_pool("noise", config.data.name, missing, seed=0, root=config.data.root)
    return np.concatenate([images, to_float(noise.images)])


def _software_rows(context: StageContext, victim: VictimId, images: Images) -> list[Row]:
    """Torch against QONNX, QONNX against integers: all codes and accumulators."""
    file = context.upstream(victim.attacked)
    with context.progress.bar(f"{victim.stem}: torch, QONNX, integers", len(images)) as show:
        parity = compare(exported(context, victim), file, images, lower(file), show)
    refuse(parity.replaced)
    noise = {one.engine: asdict(one) for one in parity.noise}
    rows = []
    for (a, b), (mismatches, by_noise) in parity.pairs.items():
        row = _row(a, b, parity.inputs, mismatches)
        if (a, b) == parity.engines:
            row["first_layer"] = parity.first_layer
        if by_noise:
            row["by_noise"] = by_noise
            row["noise"] = [noise[name] for name in (a, b) if name in noise]
        rows.append(row)
    return rows


def _finn_rows(context: StageContext, victim: VictimId, images: Images) -> list[Row]:
    """The integer engine against FINN's graph after every step."""
    if not _is_built(context, victim):
        return []
    from fpga_flow.compile import FinnBuild
    from fpga_flow.compile.compare import compare_steps

    file = context.upstream(victim.attacked)
    build = FinnBuild.load(context.upstream(_build(victim)).parent)
    engine = IntegerEngine(file)
    names = {*build.activations, engine.network.output.tensor}
    compared = compare_steps(build, file, images, engine.integers(images, names))
    return [
        _row("integer", f"finn {step.step}", step.inputs, step.mismatches)
        | {"first_layer": step.first_layer}
        for step in compared
    ]


def _hardware_rows(context: StageContext, victim: VictimId) -> list[Row]:
    """The integer engine against the RTL, the RTL against netlist and chip."""
    design_file = context.upstream(f"compile/{victim.stem}/design/design.json")
    if not _is_built(context, victim) or not design_file.is_file():
        return []
    from fpga_flow.engines.netlist import compare_netlist
    from fpga_flow.rtl import Design
    from fpga_flow.synthesis import BitstreamReport
    from fpga_flow.targets import open_target

    config, log = context.config, context.progress.log
    chosen = config.simulate
    images = equivalence_inputs(config, chosen.rtl_inputs)
    built = context.upstream(_build(victim)).parent
    design = Design.load(built / "design")
    rows: list[Row] = []
    if chosen.rtl_inputs:
        rows += _rtl_rows(context.upstream(victim.attacked), design, images, log)
    if (built / "bitstream" / "report.json").is_file():
        device = open_target(BitstreamReport.load(built / "bitstream").target)
        if chosen.netlist_inputs and not device.family.netlist_models:
            log(f"simulate: {built.name}: no netlist level, {device.name}'s cells have no models")
        elif chosen.netlist_inputs:
            log(f"simulate: {built.name}: netlist after synthesis")
            some = images[: chosen.netlist_inputs]
            rows.append(compare_netlist(design, built / "bitstream", some))
        if chosen.chip_inputs:
            log(f"simulate: {built.name}: whole chip, from the host's bytes")
            rows.append(_chip_row(design, built / "chip", images[: chosen.chip_inputs]))
    return rows


def _rtl_rows(
    onnx: Path, design: "Design", images: Images, log: Callable[[str], None]
) -> list[Row]:
    from fpga_flow.engines.rtl import RtlEngine

    expected = IntegerEngine(onnx).accumulators(images)[design.output_layer]
    if design.unit is not None:
        expected = design.unit.codes(expected)
    rows = []
    for name, stalls in (("rtl", 0.0), ("rtl with stalls", _STALLS)):
        log(f"simulate: {name}, {len(images):,} images")
        with RtlEngine(design, idle=stalls, back_pressure=stalls) as engine:
            answers = engine.answers(images)
        rows.append(_compared(design, "integer", name, expected, answers))
    return rows


def _chip_row(design: "Design", folder: Path, images: Images) -> Row:
    from fpga_flow.engines.chip import simulate_chip
    from fpga_flow.engines.rtl import RtlEngine
    from fpga_flow.host.chip import Chip

    with RtlEngine(design) as engine:
        expected = engine.answers(images)
    chip = simulate_chip(design, Chip.load(folder))
    try:
        answers = chip.answers(images)
    finally:
        chip.driver.close()
    return _compared(design, "rtl", "chip", expected, answers)


def _compared(design: "Design", a: str, b: str, expected: IntArray, answers: IntArray) -> Row:
    differs = (expected != answers).any(axis=1)
    return _row(a, b, len(expected), int(differs.sum())) | design.compared


def _build(victim: VictimId) -> str:
    return f"compile/{victim.stem}/build.json"


def _hash(context: StageContext, victim: VictimId, name: str) -> str | None:
    path = f"compile/{victim.stem}/{name}"
    there = _is_built(context, victim) and context.upstream(path).is_file()
    return context.hash(path) if there else None


def _is_built(context: StageContext, victim: VictimId) -> bool:
    return "compile" in context.readable and context.upstream(_build(victim)).is_file()


def _row(a: str, b: str, inputs: int, mismatches: int) -> Row:
    return {"a": a, "b": b, "inputs": inputs, "mismatches": mismatches, "unit": "accumulators"}
