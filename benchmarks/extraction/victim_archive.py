"""Victims kept with the results, so that anyone can attack the very same networks.

``victims.jsonl.gz`` has a record a victim. ``victims.zip`` has the files that are attacked, each
named by its content's hash: the ONNX file of a quantized network, the weights of a float one.
Only networks that a committed experiment attacks have a file; the float networks that others were
trained from are trained again where they are needed. Training again elsewhere may end in other
last bits, and takes far longer than an attack.
"""

import gzip
import json
import lzma
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.extraction.records import ExperimentRecord, write_gzip
from benchmarks.extraction.specs import VictimSpec
from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json, replacing, sha256_file

FILE, ARCHIVE = "victims.jsonl.gz", "victims.zip"
WEIGHTS, MODEL = "weights.safetensors", "model.onnx"
_LARGEST = 64 * 2**20  # bytes of a victim's file, far above any of the compact scale
Record = dict[str, Any]


def attacked_file(spec: VictimSpec) -> str:
    """The file of a victim's folder that responses are computed from.

    Example:
        >>> attacked_file(VictimSpec(dataset="digits", model="digits-cnn", variant="float"))
        'weights.safetensors'
    """
    return WEIGHTS if spec.variant == "float" else MODEL


def attacked_hash(sha256: dict[str, str]) -> str | None:
    """The hash of the attacked file among those of a victim's files."""
    return sha256.get(MODEL) or sha256.get(WEIGHTS)


def member(record: Record) -> str:
    """The name of a victim's attacked file in the archive.

    Example:
        >>> member({"sha256": {"weights.safetensors": "ab12", "model.onnx": "cd34"}})
        'cd34.onnx'
    """
    name = MODEL if MODEL in record["sha256"] else WEIGHTS
    return f"{record['sha256'][name]}{Path(name).suffix}"


def members(results: Path) -> set[str]:
    """The files in the archive.

    Raises:
        InputError: it is damaged.
    """
    path = results / ARCHIVE
    if not path.is_file():
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except zipfile.BadZipFile as e:
        raise InputError(f"{path} is damaged: {e}. Get it again from the repository.") from e


def read_victims(results: Path) -> list[Record]:
    """The records of the victims, by name; none where there are none."""
    path = results / FILE
    if not path.is_file():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_victims(results: Path, records: Iterable[Record]) -> Path:
    """Write the records, the same bytes for the same records; returns the file."""
    lines = [
        json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        for record in sorted(records, key=lambda record: str(record["name"]))
    ]
    return write_gzip(results / FILE, "".join(lines))


def keep_victims(results: Path, work: Path, experiments: Sequence[ExperimentRecord]) -> int:
    """Keep the attacked victims, and the records of those they were trained from; how many.

    Those that are not in the work folder stay as they are. A victim that is kept with other
    weights stays too: experiments were measured on it.
    """
    kept = {record["name"]: record for record in read_victims(results)}
    archived = members(results)
    attacked = {(e.victim_record.name, e.victim_record.key) for e in experiments}
    hashes = {attacked_hash(e.victim_record.sha256) for e in experiments}
    waiting, seen = set(attacked), set()
    count, fresh = 0, dict[str, bytes]()
    while waiting:
        name, key = victim = waiting.pop()
        seen.add(victim)
        source = work / "victims" / f"{name}-{key[:12]}"
        if not (source / "victim.json").is_file():
            continue
        record = read_json(source / "victim.json")
        spec = spec_of(record)
        waiting |= {(v.name, v.key) for v in spec.needs} - seen
        there = kept.get(name)
        if (
            there is not None
            and member(there) in archived
            and there["key"] == key
            and there["sha256"] != record["sha256"]
        ):
            continue
        # A twin's accuracies guard the trainings that are compared with it.
        record["history"] = [
            {key: row[key] for key in ("epoch", "val_accuracy") if key in row}
            for row in record.pop("history", [])
        ]
        kept[name] = record
        count += 1
        if attacked_hash(record["sha256"]) in hashes and member(record) not in archived:
            fresh[member(record)] = (source / attacked_file(spec)).read_bytes()
    if fresh:
        _write_archive(results, fresh)
    write_victims(results, kept.values())
    return count


def restore(results: Path, spec: VictimSpec, folder: Path) -> Record | None:
    """Unpack a kept victim.

    Args:
        results: folder of results.
        spec: the victim.
        folder: where its file goes; what was there is replaced.

    Returns:
        Its record, or None where it is not kept, or was trained with other settings.

    Raises:
        CheckFailedError: the file is not what its record says.
    """
    record = next((r for r in read_victims(results) if r["name"] == spec.name), None)
    if record is None or record["key"] != spec.key or member(record) not in members(results):
        return None
    name, archive = attacked_file(spec), results / ARCHIVE
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / name) as temporary:
        try:
            with zipfile.ZipFile(archive) as archived, archived.open(member(record)) as file:
                temporary.write_bytes(file.read(_LARGEST))
            intact = sha256_file(temporary) == record["sha256"][name]
        except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile):
            intact = False
        if not intact:
            raise CheckFailedError(
                f"{member(record)} in {archive} is not what the victim's record describes. Get the "
                "archive again from the repository, or delete it to train its victims anew."
            )
    return record


def _write_archive(results: Path, fresh: dict[str, bytes]) -> None:
    """Add files to the archive, whole or not at all: the same files give the same bytes."""
    path = results / ARCHIVE
    files = dict(fresh)
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            files |= {name: archive.read(name) for name in archive.namelist()}
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_LZMA
            archive.writestr(info, files[name])


def spec_of(record: Record) -> VictimSpec:
    """The victim that a record describes."""
    about = record["spec"]
    known = {field.name: about[field.name] for field in fields(VictimSpec) if field.name in about}
    known["changes"] = tuple((name, value) for name, value in known.get("changes", ()))
    if known.get("shape") is not None:
        known["shape"] = tuple(known["shape"])
    return VictimSpec(**known)
