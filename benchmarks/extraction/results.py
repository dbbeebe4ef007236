"""The benchmark's experiments as results of schema 1: one document a data set and network.

Tables, plots and ``summary.json`` are a function of ``experiments.jsonl.gz``,
``victims.jsonl.gz``, ``detection.json`` and ``ownership.json``, and of nothing else. A victim
without a record of its own is known by the accuracy that its experiments state.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.extraction.records import ExperimentRecord
from benchmarks.extraction.specs import file_name
from benchmarks.extraction.victim_archive import (
    Record,
    attacked_hash,
    member,
    members,
    read_victims,
)
from divqat_brevitas.data import dataset_info, load
from divqat_brevitas.errors import DivQATError
from divqat_brevitas.extraction.defences.owner import split_fallback
from divqat_brevitas.extraction.evaluation.records import AttackFields
from divqat_brevitas.extraction.evaluation.summary import BASELINE, summarize
from divqat_brevitas.files import read_json, write_json
from fpga_flow.report.schema import Results, validate

OWNERSHIP = "ownership.json"
"""The ownership test's rows, measured by :mod:`benchmarks.extraction.ownership`."""
DETECTION = "detection.json"
"""The tripwire's rows, measured by :mod:`benchmarks.extraction.detection`."""
FLOAT = "float"
GATED = "+gate"
HASH = "victim_sha256"
"""Of a victim's row: the kept file, if there is one; of an attack's: what was attacked."""
_ROW = tuple(AttackFields.model_fields)


def kept_victims(folder: Path) -> list[Record]:
    """The victims' records; ``kept`` is whether the attacked file is there too."""
    archived = members(folder)
    return [record | {"kept": member(record) in archived} for record in read_victims(folder)]


def documents(
    experiments: Iterable[ExperimentRecord], victims: Sequence[Record] = ()
) -> dict[str, Results]:
    """Results by file name's stem: ``cifar10`` → its results.

    A data set with several networks or bit widths gives one document each; the one with most
    experiments has the data set's name, the others name network and bits too. The float victim
    stands in each document of its network.

    Args:
        experiments: of any data sets.
        victims: from :func:`kept_victims`.

    Raises:
        InputError: the same attack twice.
    """
    records = list(behind_gates(list(experiments)))
    groups: dict[tuple[str, str, str], list[ExperimentRecord]] = {}
    for record in records:
        if record.victim != FLOAT:
            groups.setdefault((record.dataset, record.model, record.bits), []).append(record)
    named: dict[str, Results] = {}
    for key, own in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0])):
        floats = [r for r in records if (r.victim, r.dataset, r.model) == (FLOAT, *key[:2])]
        name = file_name(key[0])
        if name in named:
            name = file_name(".".join(key))
        named[name] = _results(key, [*floats, *own], victims)
    return named


def behind_gates(records: Sequence[ExperimentRecord]) -> Iterator[ExperimentRecord]:
    """The experiments, with a network behind its label-only fallback as a victim of its own.

    The fallback, or gate (:mod:`divqat_brevitas.extraction.defences.truncation`), belongs to the
    decoy as the answer unit does to a chip; it is no defence among others: "gate:0:0.05+dcp@0.2" is
    the defence "dcp@0.2" of the network behind its gate. It keeps every label, so that what
    attackers with labels only got from the network holds behind the gate as well.
    """
    gated = {record.victim for record in records if split_fallback(record.defence)[0]}
    for record in records:
        name = f"{record.victim}{GATED}"
        gate, rest = split_fallback(record.defence)
        if gate:
            # The cost of more than a gate is on top of the gate.
            cost = record.defence_cost if rest != "none" else None
            yield record.model_copy(update={"victim": name, "defence": rest, "defence_cost": cost})
            continue
        yield record
        if record.victim in gated and (record.oracle, record.defence) == ("top1", "none"):
            yield record.model_copy(update={"victim": name})


def write_documents(results: Mapping[str, Results], folder: Path) -> list[Path]:
    """Write each as ``results-<name>.json`` with the counts of images; returns the files."""
    counts = _image_counts(results, folder)
    paths = []
    for name, one in results.items():
        document = one.model_dump(by_alias=True, mode="json")
        document["dataset"] |= counts[one.dataset.name]
        paths.append(folder / f"results-{name}.json")
        write_json(paths[-1], document)
    return paths


def write_summary(results: Mapping[str, Results], folder: Path) -> Path:
    """Write ``summary.json``: the worst case of every group of every data set; returns it."""
    rows = [
        {"dataset": one.dataset.name, **row.model_dump(mode="json")}
        for one in results.values()
        for row in one.summary
    ]
    counts = _image_counts(results, folder)
    path = folder / "summary.json"
    write_json(
        path,
        {
            "schema": 1,
            "datasets": [{"name": name, **count} for name, count in sorted(counts.items())],
            "rows": rows,
            "detection": measured_rows(folder / DETECTION),
            "ownership": measured_rows(folder / OWNERSHIP),
        },
    )
    return path


def measured_rows(path: Path) -> list[Record]:
    """The rows of ``detection.json`` or ``ownership.json``; none where there is no such file."""
    return list(read_json(path)["rows"]) if path.is_file() else []


def order_of(variant: str) -> tuple[int, str]:
    """Float first, then plain QAT, then the others by name."""
    return {FLOAT: 0, BASELINE: 1}.get(variant, 2), variant


def _results(
    key: tuple[str, str, str], records: Sequence[ExperimentRecord], victims: Sequence[Record]
) -> Results:
    dataset, model, bits = key
    info = dataset_info(dataset)
    attacks = [{name: getattr(record, name) for name in _ROW} for record in records]
    rows = _victims(records, victims)
    summary = summarize(attacks, rows)
    for attack, record in zip(attacks, records, strict=True):
        attack |= {"name": record.name, HASH: attacked_hash(record.victim_record.sha256)}
        attack |= _costs(record.defence_cost)
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
    """Mean ℓ1 distances of responses: the owner's, and on the attacker's images."""
    if not paid:
        return {}
    at_cost = paid.get("found")
    costs = {"defence_l1": at_cost["cost"]["l1"] if at_cost else paid["l1"]}
    return costs | ({"defence_l1_pool": paid["pool"]["l1"]} if paid.get("pool") else {})


def _victims(
    experiments: Iterable[ExperimentRecord], victims: Iterable[Record]
) -> list[dict[str, Any]]:
    """One row an attacked victim: of the training that is kept, where experiments met several."""
    known = {(record["name"], record["key"]): record for record in victims}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for experiment in experiments:
        identity = experiment.victim, experiment.victim_seed
        about = experiment.victim_record
        record = known.get((about.name, about.key), {})
        kept = attacked_hash(record["sha256"]) if record.get("kept") else None
        if identity in rows and (kept is None or attacked_hash(about.sha256) != kept):
            continue
        utility = record.get("utility") or {}
        preset = (
            experiment.victim.removesuffix(GATED).split("-")[1]
            if experiment.victim.startswith("divqat-")
            else None
        )
        rows[identity] = {
            "variant": experiment.victim,
            "bits": experiment.bits,
            "seed": experiment.victim_seed,
            "preset": preset,
            "accuracy": experiment.victim_accuracy,
            "accuracy_engine": experiment.victim_accuracy,
            "engine": experiment.engine,
            "validation_accuracy": experiment.victim_validation_accuracy,
            "utility": utility or None,
            HASH: kept,
            **{
                name: utility.get(name)
                for name in ("ece", "l1_to_reference", "flips_from_reference")
            },
        }
    return [rows[key] for key in sorted(rows, key=lambda key: (order_of(key[0]), key[1]))]


def _image_counts(results: Mapping[str, Results], folder: Path) -> dict[str, dict[str, int | None]]:
    """Images to train and to test on, by data set.

    Where a set is not on this machine, what ``summary.json`` says, or null.
    """
    path = folder / "summary.json"
    before = {row["name"]: row for row in read_json(path)["datasets"]} if path.is_file() else {}
    counts: dict[str, dict[str, int | None]] = {}
    for name in {one.dataset.name for one in results.values()}:
        counts[name] = {}
        for split in ("train", "test"):
            try:
                counts[name][split] = len(load(name, split)[1])
            except DivQATError:
                counts[name][split] = before.get(name, {}).get(split)
    return counts
