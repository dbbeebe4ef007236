"""What a stage gets: the run directory, the settings, and tasks that are not computed twice.

A stage writes into the folder of its own name and declares each output. A part that takes long (one
victim, one attack) is a task: it is skipped when its inputs and its files are those of an earlier
run, even if that run was killed after it.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from divqat_brevitas.files import sha256_file, sha256_text, write_json
from fpga_flow.console import Progress
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.tasks import Task, recorded


class StageContext:
    """A stage's access to its run, which the caller has locked.

    ``stage`` is the stage's and its folder's name. Outputs of the upstream stages in ``readable``
    may be read: those done, and those in which a tool is missing, as far as they came.
    """

    def __init__(
        self,
        stage: str,
        run: RunDirectory,
        config: Config,
        progress: Progress,
        readable: frozenset[str] = frozenset(),
    ) -> None:
        self.stage = stage
        self.run = run
        self.config = config
        self.progress = progress
        self.readable = readable
        self._outputs: set[str] = set()
        self._tasks: set[str] = set()
        self._scratch: Path | None = None

    @property
    def folder(self) -> Path:
        """The stage's own folder."""
        return self.run.path / self.stage

    def output(self, name: str) -> Path:
        """Declare an output (a file, or a folder with all in it) and get its path."""
        self._outputs.add(f"{self.stage}/{name}")
        return self.folder / name

    def upstream(self, name: str) -> Path:
        """Path of a file of an earlier stage, such as ``"export/qat.onnx"``."""
        return self.run.path / name

    def hash(self, name: str) -> str:
        """SHA-256 of a file of an earlier stage: part of a task's key."""
        return sha256_file(self.upstream(name))

    def task(
        self,
        name: str,
        key: Mapping[str, Any],
        outputs: Sequence[str],
        work: Callable[[], object],
    ) -> bool:
        """Do ``work``, which writes ``outputs``, unless it was done with the same ``key``.

        Args:
            name: the task's name, a file name without folders.
            key: everything the outputs depend on, as JSON values.
            outputs: names within the stage's folder; each is written whole or not at all.
            work: writes them.
        """
        record_file = self._records / f"{name}.json"
        self._tasks.add(name)
        digest = _digest(key)
        paths = {f"{self.stage}/{output}" for output in outputs}
        if self.done(name, key):
            self._outputs |= paths
            return False
        self._scratch = self._records / f"{name}.{digest[:16]}.scratch"
        self._remove_scratch(name, keep=self._scratch)
        # Said beforehand, so that what a killed task leaves is known to whom it belongs.
        write_json(record_file, {"key": None, "outputs": dict.fromkeys(sorted(paths))})
        work()
        write_json(record_file, {"key": digest, "outputs": self.run.hashes(paths)})
        self._outputs |= paths
        self._remove_scratch(name)
        return True

    def done(self, name: str, key: Mapping[str, Any]) -> bool:
        """Whether a task of that name was done with the same ``key``, and its outputs are there."""
        made = _outputs(recorded(self._records / f"{name}.json", _digest(key)))
        return bool(made) and not self.run.damage(made)

    @property
    def scratch(self) -> Path:
        """A file for the running task's checkpoints: there again after a kill, else gone."""
        if self._scratch is None:
            raise RuntimeError("only a task has a scratch file")
        return self._scratch

    def _remove_scratch(self, name: str, keep: Path | None = None) -> None:
        for file in self._records.glob("*.scratch"):
            if file.name.rsplit(".", 2)[0] == name and file != keep:
                file.unlink()

    def finish(self, before: Mapping[str, str]) -> dict[str, str]:
        """Hashes of all outputs; those of the last record, ``before``, not made now are removed."""
        made = self.run.hashes(self._outputs)
        stale = set(before)
        for record_file in self._records.glob("*.json"):
            if record_file.stem not in self._tasks:
                stale |= set(_outputs(recorded(record_file)))
                record_file.unlink()
                self._remove_scratch(record_file.stem)
        for relative in stale - set(made):
            path = (self.run.path / relative).resolve()
            # The names come from a file: never remove what is not this stage's.
            if self.folder.resolve() not in path.parents:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return made

    @property
    def _records(self) -> Path:
        return self.run.path / ".tasks" / self.stage


def _digest(key: Mapping[str, Any]) -> str:
    return sha256_text(json.dumps([metadata.version("divqat"), dict(key)], sort_keys=True))


def _outputs(record: Mapping[str, Any] | None) -> dict[str, str]:
    """Path to SHA-256 of the outputs that a task's record names; empty for a damaged record."""
    outputs = None if record is None else record.get("outputs")
    return outputs if isinstance(outputs, dict) else {}


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline."""

    name: str  # command and folder
    # Settings it depends on: ``"train"``, or a single key ``"run.seeds"``
    sections: tuple[str, ...]
    function: Callable[[StageContext], None]  # the work
    needs: tuple[str, ...] = ()  # earlier stages that must be done
    uses: tuple[str, ...] = ()  # earlier stages whose outputs it takes where they are done
    # Looks up the names in the settings before any stage starts
    check: Callable[[Config], None] = lambda config: None
    # The user's files whose content counts as an input
    files: Callable[[Config], list[Path]] = lambda config: []
    # Tasks of the work that may run as soon as ``needs`` are done, beside the stages before it
    ahead: Callable[[StageContext], list[Task]] = lambda context: []
