"""Records of experiments: what one is, and where they are kept.

The committed form is ``experiments.jsonl.gz``: a JSON line an experiment, sorted by name, the same
bytes for the same rows. While experiments run, each finished one is a file of its own in the work
folder, which appears whole; :meth:`ExperimentStore.pack` moves these into the committed file.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.extraction.specs import ExperimentSpec
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.records import AttackFields
from divqat_brevitas.files import replacing

FILE = "experiments.jsonl.gz"


class VictimIdentity(BaseModel):
    """The trained network that an experiment attacked.

    Attributes:
        name: readable name.
        key: hash of the settings that it was trained with.
        sha256: hash of each of its files, by file name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    key: str
    sha256: dict[str, str]


class ExperimentRecord(AttackFields):
    """One experiment: an attack and its provenance.

    Attributes:
        name: readable and unique.
        key: hash of all settings that the result depends on.
        dataset: the victim's data set.
        model: the victim's network.
        bits: the victim's bit widths; "float32" of a float network.
        victim_accuracy: on test data, behind the chip's answer unit if it has one; a fraction of 1.
        victim_validation_accuracy: on validation data; a fraction of 1.
        defence_cost: how far the defence moves responses; None without a defence.
        spec: all settings.
        victim_record: the network that was attacked.
        pool_images: number of images that the attacker held.
        pool_sha256: hash of these images.
        seconds: time of the victim's responses ("victim") and of all else ("attacker").
        threads: of the process.
        versions: of the packages that took part.
        history: first and last epoch of the clone's training.
        rounds: of an attack that queries in rounds.
        settings: what attack and learner report of themselves.
        retired: whether the plan no longer has it; it is kept since a published table rests on it.
    """

    name: str
    key: str
    dataset: str
    model: str
    bits: str
    defence: str
    treatment: str
    pool: str
    agreement: float
    victim_accuracy: float
    victim_validation_accuracy: float | None = None
    defence_cost: dict[str, Any] | None = None
    spec: dict[str, Any]
    victim_record: VictimIdentity
    pool_images: int
    pool_sha256: str
    seconds: dict[str, float]
    threads: int
    versions: dict[str, str]
    history: list[dict[str, float]]
    rounds: int
    settings: dict[str, Any]
    retired: bool = False


class ExperimentStore:
    """The experiments of one benchmark: the committed file, and finished ones in the work folder.

    Args:
        results: folder with ``experiments.jsonl.gz``, or where it goes.
        work: folder of what is not a result.
    """

    def __init__(self, results: Path, work: Path) -> None:
        self.results = Path(results)
        self.loose = Path(work) / "experiments"

    def get(self, spec: ExperimentSpec) -> ExperimentRecord | None:
        """An experiment's record; None where it was not run, or with other settings."""
        path = self._file(spec)
        record = _parsed(path.read_text("utf-8"), path) if path.is_file() else None
        if record is None:
            record = self._packed.get(spec.name)
        return record if record is not None and record.key == spec.key else None

    def put(self, spec: ExperimentSpec, record: ExperimentRecord) -> None:
        """Keep a finished experiment in the work folder, whole or not at all."""
        with replacing(self._file(spec)) as temporary:
            temporary.write_text(_line(record), encoding="utf-8")

    def pack(self, planned: Sequence[ExperimentSpec]) -> int:
        """Move the finished experiments of a plan into the committed file; how many.

        An experiment that was run again replaces the row of its name. Rows of other settings than
        the plan's, or that it no longer has, are dropped, but for those marked as retired.
        """
        rows = {record.name: record for record in self._packed.values() if record.retired}
        files = []
        for spec in planned:
            record = self.get(spec)
            if record is not None:
                rows[spec.name] = record
                files.append(self._file(spec))
        fresh = [file for file in files if file.is_file()]
        write_experiments(self.results, rows.values())
        self.__dict__.pop("_packed", None)
        for file in fresh:
            file.unlink()
        return len(fresh)

    def _file(self, spec: ExperimentSpec) -> Path:
        return self.loose / f"{spec.name}.{spec.key[:8]}.json"

    @cached_property
    def _packed(self) -> dict[str, ExperimentRecord]:
        if not (self.results / FILE).is_file():
            return {}
        return {record.name: record for record in read_experiments(self.results)}


def read_experiments(folder: Path) -> list[ExperimentRecord]:
    """The committed experiments, by name.

    Raises:
        InputError: no experiments, or a file that is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"{folder} holds no experiments. Run `divqat bench extraction`, then "
            "`divqat bench extraction --publish`."
        )
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [_parsed(line, path) for line in file]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as e:
        raise InputError(f"{path} is damaged: {e}. Get it again from the repository.") from e


def write_experiments(folder: Path, records: Iterable[ExperimentRecord]) -> Path:
    """Write the committed file, whole or not at all; returns it."""
    lines = [_line(record) for record in sorted(records, key=lambda record: record.name)]
    return write_gzip(folder / FILE, "".join(lines))


def write_gzip(path: Path, text: str) -> Path:
    """Write compressed text without time and name: the same text gives the same bytes."""
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return path


def _line(record: ExperimentRecord) -> str:
    document = record.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"


def _parsed(text: str, path: Path) -> ExperimentRecord:
    try:
        return ExperimentRecord.model_validate_json(text)
    except ValidationError as e:
        raise InputError(f"{path} holds a row that is no experiment: {e.errors()[0]}.") from e
