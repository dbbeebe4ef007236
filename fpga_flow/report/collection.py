"""Collect what the stages wrote into one ``results.json`` (schema 1).

Only the dataset and the victims must be there. Whatever else is missing (no FINN on this machine,
a stage still to run) leaves its list empty, and ``run.stages`` says why.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.summary import summarize
from divqat_brevitas.files import read_json, write_json
from fpga_flow.report.confusion import without_confusion, worst_case_confusions
from fpga_flow.report.placement import placement
from fpga_flow.report.run_record import run_record
from fpga_flow.report.schema import (
    SCHEMA,
    AttackRow,
    Confusion,
    Dataset,
    EquivalenceRow,
    Example,
    HardwareRow,
    LayerCells,
    LayerEstimate,
    LayerRow,
    Results,
    VictimRow,
    parse,
    validate,
)

Rows = list[dict[str, Any]]


def collect(run_dir: Path) -> Results:
    """Read a run directory's stage files.

    Args:
        run_dir: a run directory (``runs/<name>``) in which at least ``train`` is done.

    Raises:
        InputError: no run directory, ``train`` has not run, or a file does not hold what schema 1
            asks for (file and field named).

    Example:
        >>> results = collect(Path("runs/demo"))  # doctest: +SKIP
        >>> [victim.accuracy for victim in results.victims]  # doctest: +SKIP
        [0.981, 0.974]
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise InputError(f"{run_dir} is no run directory. Name one that `divqat run` wrote.")
    victims, dataset = run_dir / "train" / "victims.json", run_dir / "train" / "dataset.json"
    for path in (victims, dataset):
        if not path.is_file():
            raise InputError(
                f"{path} is missing, so there is nothing to report yet. "
                f"Run `divqat train {run_dir}` first."
            )
    victim_rows = _with_engine_accuracy(_rows(victims), run_dir / "simulate" / "accuracy.json")
    attack_rows = [
        row
        for path in sorted(run_dir.glob("attack/*.json"))
        for row in _rows(path, one_row_allowed=True)
    ]
    shown = _shown(run_dir / "report" / "evidence.json")
    trained: list[VictimRow] = _parsed(VictimRow, victim_rows, victims)
    attacks: list[AttackRow] = _parsed(AttackRow, attack_rows, run_dir / "attack")
    clones = worst_case_confusions(attacks)
    document = {
        "schema": SCHEMA,
        "dataset": parse(Dataset, _read(dataset), str(dataset)),
        "victims": trained,
        "equivalence": _optional(EquivalenceRow, run_dir / "simulate" / "equivalence.json"),
        "attacks": _parsed(AttackRow, without_confusion(attack_rows), run_dir / "attack"),
        "summary": [dict(row) for row in summarize(attacks, trained)],
        "hardware": [
            row
            for path in sorted(run_dir.glob("compile/*/hardware.json"))
            for row in _optional(HardwareRow, path)
        ],
        "run": run_record(run_dir),
        "layers": {
            path.stem.removeprefix("network_"): _optional(LayerRow, path)
            for path in sorted(run_dir.glob("export/network_*.json"))
        },
        "estimates": {
            path.parent.name: _estimates(path)
            for path in sorted(run_dir.glob("compile/*/estimates.json"))
        },
        "cells": {
            path.parents[1].name: _cells(path)
            for path in sorted(run_dir.glob("compile/*/bitstream/report.json"))
        },
        "placement": {
            path.parents[1].name: placement(path)
            for path in sorted(run_dir.glob("compile/*/bitstream/report.json"))
            if path.with_name("routed.json").is_file()
        },
        "confusions": _parsed(Confusion, [*shown["confusions"], *clones], run_dir / "attack"),
        "examples": _parsed(Example, shown["examples"], run_dir / "report" / "evidence.json"),
        "training": _json_lines(run_dir / "train" / "metrics.jsonl"),
    }
    return parse(Results, document, str(run_dir))


def write(results: Results, path: Path) -> None:
    """Write ``results`` as JSON (schema 1), whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    write_json(path, results.model_dump(by_alias=True, mode="json"))


def read(path: Path) -> Results:
    """Read and check a ``results.json``.

    Raises:
        InputError: missing, not JSON, or not schema 1.
    """
    return validate(_read(path))


def _read(path: Path) -> Any:
    return _finite(read_json(path))


def _finite(value: Any) -> Any:
    """Python's JSON reader lets NaN and infinity through; schema 1 writes them as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


def _rows(path: Path, one_row_allowed: bool = False) -> Rows:
    value = _read(path)
    if one_row_allowed and isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{path} must hold a list of JSON objects. Run its stage again.")
    return value


def _parsed(model: Any, rows: Rows, path: Path) -> list[Any]:
    return [parse(model, row, f"{path}, row {index}") for index, row in enumerate(rows)]


def _optional(model: Any, path: Path) -> list[Any]:
    return _parsed(model, _rows(path), path) if path.is_file() else []


def _with_engine_accuracy(victims: Rows, path: Path) -> Rows:
    """Put the accuracy on the engine beside torch's: it is measured two stages later."""
    measured: Mapping[str, Any] = {}
    if path.is_file():
        measured = _read(path)
        if not isinstance(measured, dict):
            raise InputError(f"{path} must map variants to accuracies. Run `divqat simulate`.")
    filled = []
    for victim in victims:
        row = {"accuracy_engine": None, "engine": None, **victim}
        found = measured.get(str(row.get("variant")), {})
        # Another seed's network may never have been on the engine.
        if isinstance(found, dict) and found.get("seed", row.get("seed")) == row.get("seed"):
            row |= {key: found[key] for key in ("accuracy_engine", "engine") if key in found}
        filled.append(row)
    return filled


def _estimates(path: Path) -> list[Any]:
    value = _read(path)
    if isinstance(value, dict):  # {layer name: numbers} says the same as a list of rows
        value = value.get("layers", value)
    if isinstance(value, dict):
        value = [{"name": name, **row} for name, row in value.items() if isinstance(row, dict)]
    if not isinstance(value, list):
        raise InputError(f"{path} must hold one row a layer. Run `divqat compile` again.")
    return _parsed(LayerEstimate, value, path)


def _cells(path: Path) -> list[Any]:
    """Cells by layer of a bitstream's report."""
    value = _read(path)
    rows = value.get("layers") if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold one row a layer. Run `divqat compile` again.")
    flat = [{"name": row.get("name"), **row.get("cells", {})} for row in rows]
    return _parsed(LayerCells, flat, path)


def _shown(path: Path) -> dict[str, Rows]:
    """What the report stage asked the victims, for the page to show."""
    value = _read(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object. Delete it and run `divqat report`.")
    return {name: value.get(name, []) for name in ("confusions", "examples")}


def _json_lines(path: Path) -> Rows:
    if not path.is_file():
        return []
    rows: Rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as e:
            # A killed run leaves at most its last line cut short.
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number}: not JSON ({e}). Delete that line.") from e
        if isinstance(row, dict):
            rows.append(_finite(row))
    return rows
