"""Victims kept with the results, so that anyone can attack the very same ones.

A kept victim is its record, ``victims/<name>.json``, and beside it what is attacked, compressed:
``<name>.onnx.gz`` of a quantized network, ``<name>.safetensors.gz`` of a float one, from which
others are trained. Training again elsewhere may end in other last bits, and takes far longer than
an attack.
"""

import gzip
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.extraction.specs import VictimSpec
from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.files import read_json, replacing, sha256_file, write_json

WEIGHTS, MODEL = "weights.safetensors", "model.onnx"
_LARGEST = 64 * 2**20  # bytes; of a compact victim's file, far above any


def attacked_file(spec: VictimSpec) -> str:
    """The file of a victim's folder that answers are computed from.

    Example:
        >>> attacked_file(VictimSpec(dataset="digits", model="digits-cnn", variant="float"))
        'weights.safetensors'
    """
    return WEIGHTS if spec.variant == "float" else MODEL


def keep(results: Path, source: Path) -> bool:
    """Keep a trained victim with the results.

    Args:
        results: folder of results.
        source: the victim's folder in the work folder.

    Returns:
        Whether it is kept now. One that is there with other weights stays: cells were measured
        on it. A record without its file, of a training whose weights are lost, gives way.
    """
    record = read_json(source / "victim.json")
    home = results / "victims" / f"{record['name']}.json"
    spec = spec_of(record)
    if home.is_file() and (spec is None or _packed(results, spec).is_file()):
        there = read_json(home)
        if there["key"] == record["key"] and there.get("sha256") != record.get("sha256"):
            return False
    # Of a restored victim they are there already, and elsewhere: the record's order is one.
    history, _ = record.pop("history", []), record.pop("file", None)
    # A twin's accuracies guard the trainings that are compared with it.
    record["history"] = [
        {name: row[name] for name in ("epoch", "val_accuracy") if name in row} for row in history
    ]
    if spec is not None:
        file = source / attacked_file(spec)
        packed = _packed(results, spec)
        record["file"] = packed.name
        with replacing(packed) as temporary:
            # No time and no name: the same victim gives the same bytes.
            temporary.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    write_json(home, record)
    return True


def restore(results: Path, spec: VictimSpec, folder: Path) -> dict[str, Any] | None:
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
    home, packed = results / "victims" / f"{spec.name}.json", _packed(results, spec)
    if not (home.is_file() and packed.is_file()):
        return None
    record: dict[str, Any] = read_json(home)
    if record["key"] != spec.key:
        return None
    name = attacked_file(spec)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / name) as temporary:
        try:
            with gzip.open(packed) as file:
                temporary.write_bytes(file.read(_LARGEST))
            intact = sha256_file(temporary) == record["sha256"][name]
        except (OSError, EOFError, zlib.error):
            intact = False
        if not intact:
            raise CheckFailedError(
                f"{packed} is not the victim that its record describes. Get it again from where "
                "the results are from, or delete it to train the victim anew."
            )
    return record


def spec_of(record: dict[str, Any]) -> VictimSpec | None:
    """The victim that a record describes; None of one without a spec."""
    about = record.get("spec")
    if about is None:
        return None
    known = {field.name: about[field.name] for field in fields(VictimSpec) if field.name in about}
    known["changes"] = tuple((name, value) for name, value in known.get("changes", ()))
    if known.get("shape") is not None:
        known["shape"] = tuple(known["shape"])
    return VictimSpec(**known)


def _packed(results: Path, spec: VictimSpec) -> Path:
    kind = Path(attacked_file(spec)).suffix
    return results / "victims" / f"{spec.name}{kind}.gz"
