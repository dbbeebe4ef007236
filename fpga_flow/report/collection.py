"""Collect what the stages wrote into one ``results.json`` (schema 1).

Only the dataset and the victims must be there. Whatever else is missing (no FINN on this machine,
a stage still to run) leaves its list empty, and ``run.stages`` gives the reason.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.summary import (
    Group,
    attackers,
    defence_of,
    summarize,
    worst_case,
)
from divqat_brevitas.files import read_json, sha256_file, write_json
from fpga_flow.report import schema

Rows = list[dict[str, Any]]
R = TypeVar("R", bound=schema.Row)
_COMPARED = (
    ".safetensors",
    ".onnx",
    "/victims.json",
    "/design/design.json",
    "/chip.bit",
    "/chip.fs",
)


def collect(run_dir: Path) -> schema.Results:
    """Read the stage files of a run directory in which at least ``train`` is done.

    Raises:
        InputError: no run directory, ``train`` has not run, or a file does not hold what schema 1
            asks for (file and field named).
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
    measured = _object(run_dir / "simulate" / "accuracy.json", "Run `divqat simulate` again.")
    trained = _parsed(schema.VictimRow, _with_engine_accuracy(_rows(victims), measured), victims)
    attack_rows = [row for path in sorted(run_dir.glob("attack/*.json")) for row in _rows(path)]
    attacks = _parsed(schema.AttackRow, attack_rows, run_dir / "attack")
    evidence = run_dir / "report" / "evidence.json"
    shown = _object(evidence, "Delete it and run `divqat report`.")
    bitstreams = sorted(run_dir.glob("compile/*/bitstream/report.json"))
    document = {
        "schema": schema.SCHEMA,
        "dataset": schema.parse(schema.Dataset, _read(dataset), str(dataset)),
        "victims": trained,
        "equivalence": _optional(schema.EquivalenceRow, run_dir / "simulate" / "equivalence.json"),
        "attacks": [row.model_copy(update={"confusion": None}) for row in attacks],
        "summary": [dict(row) for row in summarize(attacks, trained)],
        "hardware": [
            row
            for path in sorted(run_dir.glob("compile/*/hardware.json"))
            for row in _optional(schema.HardwareRow, path)
        ],
        "detection": [
            row
            for path in sorted(run_dir.glob("attack/detection/*.json"))
            for row in _optional(schema.DetectionRow, path)
        ],
        "ownership": [
            row
            for path in sorted(run_dir.glob("attack/ownership/*.json"))
            for row in _optional(schema.OwnershipRow, path)
        ],
        "run": _run(run_dir),
        "layers": {
            path.stem.removeprefix("network_"): _optional(schema.LayerRow, path)
            for path in sorted(run_dir.glob("export/network_*.json"))
        },
        "estimates": {
            path.parent.name: _parsed(schema.LayerEstimate, _layers(path), path)
            for path in sorted(run_dir.glob("compile/*/estimates.json"))
        },
        "cells": {
            path.parents[1].name: _parsed(
                schema.LayerCells,
                [{"name": row.get("name"), **row.get("cells", {})} for row in _layers(path)],
                path,
            )
            for path in bitstreams
        },
        "placement": {
            path.parents[1].name: placement(path)
            for path in bitstreams
            if path.with_name("routed.json").is_file()
        },
        "designs": {
            path.parents[1].name: _parsed(schema.DesignNode, _nodes(path), path)
            for path in sorted(run_dir.glob("compile/*/design/design.json"))
        },
        "confusions": [
            *_parsed(schema.Confusion, shown.get("confusions", []), evidence),
            *worst_case_confusions(attacks),
        ],
        "examples": _parsed(schema.Example, shown.get("examples", []), evidence),
        "training": _json_lines(run_dir / "train" / "metrics.jsonl"),
    }
    return schema.parse(schema.Results, document, str(run_dir))


def write(results: schema.Results, path: Path) -> None:
    """Write ``results`` as JSON (schema 1), whole or not at all."""
    write_json(path, results.model_dump(by_alias=True, mode="json"))


def read(path: Path) -> schema.Results:
    """Read and check a ``results.json``; an InputError names what is missing or wrong."""
    return schema.validate(_read(path))


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


def _rows(path: Path) -> Rows:
    """A list of objects; a file of one object is a list of one."""
    value = _read(path)
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold a list of JSON objects. Run its stage again.")
    return rows


def _object(path: Path, remedy: str) -> dict[str, Any]:
    """The object that a file holds, {} without the file."""
    value = _read(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise InputError(f"{path} must map names to values. {remedy}")
    return value


def _layers(path: Path, key: str = "layers") -> Rows:
    """Rows by layer: the file itself, or what it has under ``key``."""
    value = _read(path)
    rows = value.get(key) if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold one row a layer. Run `divqat compile` again.")
    return rows


def _nodes(path: Path) -> Rows:
    """Layers and FIFOs of a hardware design, as far as the page draws them."""
    known = schema.DesignNode.model_fields
    return [{key: row[key] for key in known if key in row} for row in _layers(path, "nodes")]


def _parsed(model: type[R], rows: Rows, path: Path) -> list[R]:
    return [schema.parse(model, row, f"{path}, row {index}") for index, row in enumerate(rows)]


def _optional(model: type[R], path: Path) -> list[R]:
    return _parsed(model, _rows(path), path) if path.is_file() else []


def _with_engine_accuracy(victims: Rows, measured: Mapping[str, Any]) -> Rows:
    """Put the accuracy on the engine beside torch's: it is measured two stages later."""
    rows = []
    for victim in victims:
        row = {"accuracy_engine": None, "engine": None, **victim}
        engine = measured.get(str(row.get("variant")), {})
        # Another seed's network may never have been on the engine.
        if isinstance(engine, dict) and engine.get("seed", row.get("seed")) == row.get("seed"):
            row |= {key: engine[key] for key in ("accuracy_engine", "engine") if key in engine}
        rows.append(row)
    return rows


def _json_lines(path: Path) -> Rows:
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    rows: Rows = []
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


def _run(run_dir: Path) -> schema.Run:
    """Settings, versions and outcomes. No clock times: the same run gives the same file."""
    config, manifest = run_dir / "config.toml", run_dir / "manifest.json"
    settings = config.read_text("utf-8", errors="replace") if config.is_file() else None
    recorded = _object(manifest, "Run the stages again.").get("stages")
    # The report is being written now, so its own record is left out.
    stages = {
        name: record
        for name, record in (recorded if isinstance(recorded, dict) else {}).items()
        if name != "report" and isinstance(record, dict)
    }
    files = {config.name: sha256_file(config)} if settings is not None else {}
    versions: dict[str, dict[str, None]] = {}
    for record in stages.values():
        files |= {
            path: digest
            for path, digest in _strings(record, "outputs")
            if path.endswith(_COMPARED) and "/models/" not in path
        }
        for package, version in _strings(record, "versions"):
            versions.setdefault(package, {})[version] = None
    return schema.Run(
        name=_name(settings) or run_dir.resolve().name,
        config=settings,
        versions={package: " and ".join(several) for package, several in sorted(versions.items())},
        files=files,
        stages={
            name: schema.parse(
                schema.Stage,
                {"status": record.get("status"), "reason": record.get("reason") or None},
                f"{manifest}, {name}",
            )
            for name, record in stages.items()
        },
    )


def _strings(record: Mapping[str, Any], field: str) -> Iterable[tuple[str, str]]:
    value = record.get(field)
    return [(key, str(text)) for key, text in value.items()] if isinstance(value, dict) else []


def _name(settings: str | None) -> str | None:
    try:
        name = tomllib.loads(settings or "").get("run", {}).get("name")
    except (tomllib.TOMLDecodeError, AttributeError):
        return None
    return name if isinstance(name, str) else None


_BEL = re.compile(r"X(\d+)/Y(\d+)/")
# Last column and row of tiles by die, from the databases of Project Trellis and Apicula.
_DIES = {
    "-12F": (72, 50),
    "-25F": (72, 50),
    "-45F": (90, 71),
    "-85F": (126, 95),
    "GW2AR-LV18": (55, 54),
}


def placement(report: Path) -> dict[str, Any]:
    """The tiles that each layer of a placed design has cells in, largest layers first.

    Takes ``report.json`` of a bitstream, with nextpnr's ``routed.json`` beside it; returns the
    fields of :class:`fpga_flow.report.schema.Placement`.
    """
    from fpga_flow.synthesis.cells import Layers  # a second to import

    routed = report.with_name("routed.json")
    try:
        built = read_json(report)
        layers = Layers([row["name"] for row in built["layers"] if row["name"][:1] != "("])
        (module, *_) = read_json(routed)["modules"].values()
        found: dict[str, set[tuple[int, int]]] = {}
        for name, cell in module["cells"].items():
            place = _BEL.match(cell["attributes"].get("NEXTPNR_BEL", ""))
            if place:
                of = layers.of(cell["attributes"].get("hdlname", name).replace(" ", "."))
                found.setdefault(of, set()).add((int(place[1]), int(place[2])))
        device = str(built["part"])
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputError(
            f"{routed} or the report beside it is damaged. Run `divqat compile` again."
        ) from e
    columns, rows = next((d for die, d in _DIES.items() if die in device), (None, None))
    return {
        "device": device,
        "columns": columns,
        "rows": rows,
        "tiles": {
            name: " ".join(f"{x},{y}" for x, y in sorted(tiles, key=lambda t: (t[1], t[0])))
            for name, tiles in sorted(found.items(), key=lambda item: -len(item[1]))
        },
    }


LARGEST = 20
"""Number of classes up to which a matrix is made; larger ones would not be read."""


def confusion(
    labels: npt.NDArray[Any], predictions: npt.NDArray[Any], classes: int
) -> list[list[int]] | None:
    """``counts[i][j]``: images of class i that were taken for class j; None for too many classes.

    ``labels`` and ``predictions`` are integers (N,) below ``classes``.

    Example:
        >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
        [[1, 0], [1, 1]]
    """
    if classes > LARGEST:
        return None
    counts = np.bincount(np.asarray(labels) * classes + predictions, minlength=classes * classes)
    rows: list[list[int]] = counts.reshape(classes, classes).tolist()
    return rows


def worst_case_confusions(rows: Sequence[schema.AttackRow]) -> list[schema.Confusion]:
    """Confusion rows of the worst-case clone of every victim and kind of query pool.

    At the largest budget and over all oracles, without a defence where it was attacked without
    one; of several seeds the first. None where the attack's file holds no matrix.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        places.setdefault((row.victim, row.pool_kind), []).append(defence_of(row))
    confusions: list[schema.Confusion] = []
    for (victim, kind), defences in places.items():
        group = Group(victim, kind, 0, defence="none" if "none" in defences else defences[0])
        group = replace(group, budget=group.budgets(rows)[-1])
        own = group.of(rows)
        worst = worst_case(attackers(own))
        clones = [row for row in own if worst and attackers([row])[0].method == worst.method]
        first = min(clones, key=lambda row: (row.victim_seed, row.seed), default=None)
        counts = first.confusion if first else None
        if first is not None and worst is not None and counts is not None:
            behind = "" if group.defence == "none" else f" behind {group.defence}"
            confusions.append(
                schema.Confusion(
                    kind="clone",
                    victim=victim,
                    seed=first.victim_seed,
                    what=f"{worst.name}{behind}, {group.budget:,} queries",
                    counts=counts,
                )
            )
    return confusions
