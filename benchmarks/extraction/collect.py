"""The benchmark's cells and victims as results of schema 1: one document a data set and network.

Reads ``cells/*.json`` and ``victims/*.json`` below a folder of results, nothing else: tables and
plots are a function of these files. A victim without a record of its own is known by the accuracy
that its cells state.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.extraction.kept import MODEL, WEIGHTS, keep, spec_of
from benchmarks.extraction.specs import CellSpec, file_name
from divqat_brevitas.data import dataset_info, load
from divqat_brevitas.errors import DivQATError, InputError
from divqat_brevitas.extraction.defences.owner import split_fallback
from divqat_brevitas.extraction.evaluation.records import AttackRow
from divqat_brevitas.extraction.evaluation.summary import BASELINE, summarize
from divqat_brevitas.files import read_json, write_json
from fpga_flow.report.schema import Results, validate

Record = dict[str, Any]
FLOAT = "float"
GATED = "+gate"
_ROW = tuple(AttackRow.__annotations__)
# Beyond an attack row: how far the defence moved the answers, and the cell's name.
_MORE = ("defence_l1", "name")
HASH = "victim_sha256"
"""Of a victim's row: the kept file, if there is one; of an attack's: what was attacked."""


def read_cells(folder: Path, planned: Sequence[CellSpec] | None = None) -> list[Record]:
    """The cells' documents, by name; those that the plan no longer describes are left out.

    Args:
        folder: of results.
        planned: the plan; without it no cell counts as stale.

    Raises:
        InputError: no cells, or a file that is none.
    """
    keys = {spec.name: spec.key for spec in planned or ()}
    cells = []
    for path in sorted((folder / "cells").glob("*.json")):
        cell = read_json(path)
        if not isinstance(cell, dict) or not {*_ROW, "dataset", "model", "bits"} <= cell.keys():
            raise InputError(f"{path} is no cell of the extraction benchmark. Delete it.")
        if keys.get(path.stem, cell.get("key")) == cell.get("key"):
            cells.append(cell)
    if not cells:
        raise InputError(f"{folder} holds no cells. Run `divqat bench extraction` first.")
    return cells


def read_victims(folder: Path) -> list[Record]:
    """The records of victims kept with the results; none where there are none."""
    return [read_json(path) for path in sorted((folder / "victims").glob("*.json"))]


def keep_victims(folder: Path, work: Path) -> int:
    """Keep the attacked victims, and those they were trained from, with the results; how many.

    Those that are not in the work folder are left out, or stay as they are.
    """
    waiting = {(c["victim_record"]["name"], c["victim_record"]["key"]) for c in read_cells(folder)}
    seen: set[tuple[str, str]] = set()
    count = 0
    while waiting:
        name, key = victim = waiting.pop()
        seen.add(victim)
        source = work / "victims" / f"{name}-{key[:12]}"
        if (source / "victim.json").is_file():
            count += keep(folder, source)
            spec = spec_of(read_json(source / "victim.json"))
            waiting |= {(v.name, v.key) for v in spec.needs} - seen if spec else set()
    return count


def documents(cells: Sequence[Record], victims: Sequence[Record] = ()) -> dict[str, Results]:
    """Results by file name's stem: ``cifar10`` → its results.

    A data set with several networks or bit widths gives one document each; the one with most
    cells has the data set's name, the others name network and bits too. The float victim stands
    in each document of its network.

    Raises:
        InputError: the same attack twice.
    """
    cells = list(behind_gates(cells))
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for cell in cells:
        if cell["victim"] != FLOAT:
            key = (cell["dataset"], cell["model"], cell["bits"])
            groups.setdefault(key, []).append(cell)
    named: dict[str, Results] = {}
    for key, own in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0])):
        dataset, model, _ = key
        floats = [
            c for c in cells if (c["victim"], c["dataset"], c["model"]) == (FLOAT, dataset, model)
        ]
        name = file_name(dataset)
        if name in named:
            name = file_name(".".join(key))
        named[name] = _results(key, [*floats, *own], victims)
    return named


def behind_gates(cells: Sequence[Record]) -> Iterator[Record]:
    """The cells, with a network behind the gate of its decoy as a victim of its own.

    The gate (:mod:`divqat_brevitas.extraction.defences.label_only`) belongs to the decoy as the
    answer unit does to a chip; it is no defence among others: "gate:0:0.05+dcp@0.2" is the defence
    "dcp@0.2" of the network behind its gate. It keeps every label, so that what thieves of labels
    got from the network holds behind the gate as well.
    """
    gated = {cell["victim"] for cell in cells if split_fallback(cell["defence"])[0]}
    for cell in cells:
        name = f"{cell['victim']}{GATED}"
        gate, rest = split_fallback(cell["defence"])
        if gate:
            # The cost of more than a gate is on top of the gate.
            cost = cell.get("defence_cost") if rest != "none" else None
            yield {**cell, "victim": name, "defence": rest, "defence_cost": cost}
            continue
        yield cell
        if cell["victim"] in gated and (cell["oracle"], cell["defence"]) == ("top1", "none"):
            yield {**cell, "victim": name}


def write_documents(found: dict[str, Results], folder: Path) -> list[Path]:
    """Write each as ``results-<name>.json``; returns the files."""
    paths = []
    for name, results in found.items():
        document = results.model_dump(by_alias=True, mode="json")
        paths.append(folder / f"results-{name}.json")
        document["dataset"] |= _sizes(results.dataset.name, paths[-1])
        write_json(paths[-1], document)
    return paths


def order_of(variant: str) -> tuple[int, str]:
    """Float first, then plain QAT, then the others by name."""
    first = {FLOAT: 0, BASELINE: 1}
    return first.get(variant, 2), variant


def _results(
    key: tuple[str, str, str], cells: Sequence[Record], victims: Sequence[Record]
) -> Results:
    dataset, model, bits = key
    info = dataset_info(dataset)
    attacks: list[Any] = [{name: cell[name] for name in _ROW} for cell in cells]
    rows = _victims(cells, victims)
    summary = summarize(attacks, rows)
    for attack, cell in zip(attacks, cells, strict=True):
        attack |= {name: cell[name] for name in _MORE if name in cell}
        attack |= {k: v for k, v in _costs(cell.get("defence_cost")).items() if k not in attack}
        attack[HASH] = _hash(cell.get("victim_record"))
    return validate(
        {
            "schema": 1,
            "dataset": {
                "name": dataset,
                "train": None,
                "test": None,
                "classes": len(info.classes),
                "shape": list(info.shape),
                "model": model,
                "bits": bits,
            },
            "victims": rows,
            "equivalence": [],
            "attacks": attacks,
            "summary": [dict(row) for row in summary],
            "hardware": [],
        }
    )


def _costs(paid: Record | None) -> dict[str, float]:
    """Mean ℓ1 distances: the one by which the strength was chosen, if it was, and the thief's."""
    if not paid:
        return {}
    found = paid.get("found")
    costs = {"defence_l1": found["cost"]["l1"] if found else paid["l1"]}
    return costs | ({"defence_l1_pool": paid["pool"]["l1"]} if paid.get("pool") else {})


def _hash(record: Record | None) -> str | None:
    """SHA-256 of what answers: the model, or a float victim's weights."""
    files = (record or {}).get("sha256") or {}
    return files.get(MODEL) or files.get(WEIGHTS)


def _victims(cells: Iterable[Record], records: Iterable[Record]) -> list[Record]:
    """One row an attacked victim: of the training that is kept, where cells met several."""
    known = {(record["name"], record["key"]): record for record in records}
    rows: dict[tuple[str, int], Record] = {}
    for cell in cells:
        identity = cell["victim"], cell["victim_seed"]
        about = cell.get("victim_record") or {}
        record = known.get((about.get("name"), about.get("key")), {})
        kept = _hash(record) if record.get("file") else None
        if identity in rows and (kept is None or _hash(about) != kept):
            continue
        utility = record.get("utility") or {}
        preset = (
            cell["victim"].removesuffix(GATED).split("-")[1]
            if cell["victim"].startswith("divqat-")
            else None
        )
        rows[identity] = {
            "variant": cell["victim"],
            "bits": cell["bits"],
            "seed": cell["victim_seed"],
            "preset": preset,
            "accuracy": cell["victim_accuracy"],
            "accuracy_engine": cell["victim_accuracy"],
            "engine": cell["engine"],
            "validation_accuracy": cell.get("victim_validation_accuracy"),
            "utility": utility or None,
            HASH: kept,
            **{
                name: utility.get(name)
                for name in ("ece", "l1_to_reference", "flips_from_reference")
            },
        }
    return [rows[key] for key in sorted(rows, key=lambda key: (order_of(key[0]), key[1]))]


def _sizes(dataset: str, before: Path) -> dict[str, int | None]:
    """How many images; what the file said before, or null, where the set is not on this machine."""
    splits = ("train", "test")
    try:
        return {split: len(load(dataset, split)[1]) for split in splits}
    except DivQATError:
        known = read_json(before)["dataset"] if before.is_file() else {}
        return {split: known.get(split) for split in splits}
