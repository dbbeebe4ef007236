"""A cell in its folder: what a process needs to run it, its log of starts and ends, its result.

DIR/cells/NAME/   a run directory (config.toml, manifest.json, train/, ...) and besides
    cell.json       key, settings, key figures: written when the cell is finished
    events.jsonl    one line a start and an end, with host and process
    log.txt         what the run printed
"""

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json
from fpga_flow.pipeline.sweep.plan import Cell

State = Literal["done", "there", "missing-tool", "failed", "interrupted"]
SWEEP_LOCK = ".lock"  # in the sweep's folder, held by the one `divqat sweep` that works in it
CELL_LOCK = ".cell-lock"  # in the cell's, held by the process that runs it


@dataclass(frozen=True)
class Task:
    """Everything another process, here or on another machine, needs to run a cell.

    Attributes:
        folder: the cell's run directory, absolute.
        name: the cell's.
        key: the cell's.
        settings: those that make the cell.
        config: all settings, as JSON.
        skip: stages left out.
    """

    folder: str
    name: str
    key: str
    settings: Mapping[str, Any]
    config: str
    skip: tuple[str, ...]

    @classmethod
    def of(cls, cell: Cell, out: Path) -> Self:
        """The task of a cell in a sweep's folder."""
        return cls(
            str(cell_folder(out, cell).absolute()),
            cell.name,
            cell.key,
            cell.settings,
            cell.config.model_dump_json(),
            cell.skip,
        )

    @property
    def sweep(self) -> Path:
        """The sweep's folder."""
        return Path(self.folder).parent.parent


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        state: ``"there"``: it was finished before; ``"missing-tool"``: finished but for a stage
            whose tool is not installed.
        detail: why, where it is not done.
        seconds: wall time of the run.
        figures: see `fpga_flow.pipeline.sweep.figures.key_figures`.
    """

    state: State
    detail: str = ""
    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


def cell_folder(out: Path, cell: Cell) -> Path:
    """A cell's run directory in a sweep's folder."""
    return out / "cells" / cell.folder


def recorded(folder: Path, key: str) -> dict[str, Any] | None:
    """What a finished cell wrote; None where it is not finished, or is another cell."""
    file = folder / "cell.json"
    if not file.is_file():
        return None
    try:
        record = read_json(file)
    except InputError:
        return None  # damaged: the cell is run again, and what its stages made is found there
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    return record


def finished(folder: Path, key: str) -> bool:
    """Whether a cell is done and never to be run again."""
    record = recorded(folder, key)
    return record is not None and record.get("state") == "done"


def write_event(folder: Path, event: str, **more: Any) -> None:
    """Append a line to the cell's log; only the holder of the cell's lock may."""
    line = {
        "event": event,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "host": socket.gethostname(),
        "process": os.getpid(),
        **more,
    }
    with (folder / "events.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps(line) + "\n")


def events(folder: Path) -> list[dict[str, Any]]:
    """The cell's log, oldest first; a line cut off by a crash is left out."""
    file = folder / "events.jsonl"
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def last_event(folder: Path) -> str | None:
    """The last line's word; None where the cell was never begun."""
    found = events(folder)
    return str(found[-1]["event"]) if found else None


def outcome_json(outcome: Outcome) -> str:
    """An outcome as one line."""
    return json.dumps(asdict(outcome), allow_nan=False)
