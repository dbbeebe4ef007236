"""A run directory: its lock, and the manifest of what each stage made from what.

``manifest.json`` holds one record a stage: the hashes of its inputs, its outputs
with their SHA-256, and the versions that made them. A stage is fresh when both
the inputs and the files still are what the record says. In the stages' folders, what
is named like a temporary file of ours (``.result.json.ab12cd34.json``) is swept away
when the next process takes the lock; nothing else is touched.
"""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Literal, Self

from pydantic import TypeAdapter, ValidationError

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, sha256_file, write_json, write_text
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.errors import RunLockedError
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.resolve import resolve, to_toml
from fpga_flow.pipeline.tasks import LockedError, locked

Status = Literal["running", "done", "failed", "missing-tool"]
PACKAGES = ("divqat", "torch", "brevitas", "qonnx", "onnx", "onnxruntime", "numpy", "finn-plus")


@dataclass(frozen=True)
class StageRecord(ShortRepr):
    """What the manifest says of one stage."""

    status: Status  # ``"running"`` stays when a process was killed
    # Name of an input (a settings section, an upstream stage) to its hash
    inputs: Mapping[str, str]
    # Path relative to the run directory to SHA-256
    outputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)  # package to version
    seconds: float = 0.0  # wall time of the last execution
    reason: str = ""  # why the stage failed or was skipped; empty when it is done


_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_RECORDS = TypeAdapter(dict[str, StageRecord])
_FOLDERS = ("train", "export", "compile", "simulate", "attack", "report", ".tasks")
# What divqat_brevitas.files and tempfile.mkdtemp make, and a design or build that grows.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.[^.]+)?|\..+\.(building(\.o)?|former|finished|lock)")


class RunDirectory:
    """One run's folder. Nothing is created before something is written.

    Example:
        >>> run = RunDirectory(Path("runs/demo"))
        >>> run.record("train") is None
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def existing(cls, path: Path) -> Self:
        """A run directory that must already hold settings.

        Raises:
            InputError: there is no ``config.toml`` in it.
        """
        run = cls(path)
        if not run.config_file.is_file():
            raise InputError(
                f"{path} is not a run directory: it has no config.toml. Start one with "
                f"`divqat run --preset smoke --out {path}`."
            )
        return run

    @property
    def config_file(self) -> Path:
        """Where the resolved settings are."""
        return self.path / "config.toml"

    @property
    def manifest_file(self) -> Path:
        """Where the stages' records are."""
        return self.path / "manifest.json"

    def config(self) -> Config:
        """The settings saved in it."""
        return resolve(self.config_file)

    def save_config(self, config: Config) -> None:
        """Save resolved settings, whole or not at all.

        A file that says the same is left as its author wrote it.

        Raises:
            InputError: there is a ``config.toml`` that is not this run's.
        """
        if self.config_file.is_file():
            try:
                saved = self.config()
                if saved == config:
                    return
                ours = self.config_file.read_text(encoding="utf-8") == to_toml(saved)
            except InputError:
                ours = False
            if not ours and not self.manifest_file.exists():
                raise InputError(
                    f"{self.config_file} holds other settings, and no run was made in this folder: "
                    "it would be overwritten. Move it away, or choose another folder with --out."
                )
        write_text(self.config_file, to_toml(config))

    def records(self) -> dict[str, StageRecord]:
        """All stages' records, by name.

        Raises:
            InputError: the manifest is damaged.
        """
        if not self.manifest_file.exists():
            return {}
        manifest = read_json(self.manifest_file)
        try:
            return _RECORDS.validate_python(manifest["stages"])
        except (ValidationError, KeyError, TypeError) as e:
            raise InputError(
                f"{self.manifest_file} is damaged. Delete it and run the same command again: "
                "finished parts are recognised by their files."
            ) from e

    def record(self, stage: str) -> StageRecord | None:
        """One stage's record, or None where the stage never ran."""
        return self.records().get(stage)

    def write_record(self, stage: str, record: StageRecord) -> None:
        """Replace one stage's record."""
        stages = self.records() | {stage: record}
        write_json(
            self.manifest_file,
            {"schema": 1, "stages": {name: asdict(r) for name, r in stages.items()}},
        )

    def hashes(self, paths: set[str]) -> dict[str, str]:
        """SHA-256 of files, by relative path; a folder stands for all files in it."""
        files: set[Path] = set()
        for relative in paths:
            path = self.path / relative
            files |= {p for p in path.rglob("*") if p.is_file()} if path.is_dir() else {path}
        return {p.relative_to(self.path).as_posix(): sha256_file(p) for p in sorted(files)}

    def damage(self, outputs: Mapping[str, str]) -> str:
        """Which recorded output is not as it was made; empty when all are.

        Example:
            >>> RunDirectory(Path("runs/demo")).damage({})
            ''
        """
        for relative, expected in outputs.items():
            path = self.path / relative
            if not path.is_file():
                return f"{relative} is gone"
            if sha256_file(path) != expected:
                return f"{relative} was changed"
        return ""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Own the directory.

        The operating system releases the lock when its process ends, however that ends.

        Raises:
            RunLockedError: another process owns it; its id, host and start are named.
            InputError: the directory cannot be written.
        """
        lock_file = self.path / ".lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock_file, wait=False))
            except LockedError as e:
                raise RunLockedError(
                    f"another divqat works in {self.path} (process {_owner(lock_file)}). Wait for "
                    "it, or choose another directory with --out."
                ) from e
            except (OSError, ValueError) as e:  # a NUL in the name is a ValueError
                said = getattr(e, "strerror", None) or e
                if getattr(e, "errno", None) in _NO_LOCKS:
                    raise InputError(
                        f"{self.path} is on a file system without locks ({said}). Choose a "
                        "directory on a local disk with --out."
                    ) from e
                raise InputError(
                    f"cannot write to the run directory {self.path}: {said}. Make it writable "
                    "or choose another with --out."
                ) from e
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            owner = f"{os.getpid()} on {socket.gethostname()} since {since}\n"
            with suppress(OSError):  # a full disk: the lock holds without its text
                lock_file.write_text(owner, encoding="utf-8")
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove temporary files that a killed process left (only the lock's owner may)."""
        # In a folder where no run began, folders of these names are somebody else's.
        ours = self.manifest_file.exists() or (self.path / ".tasks").is_dir()
        for entry in self.path.iterdir():
            if entry.name.startswith((".manifest.json.", ".config.toml.")):
                if _TEMPORARY.fullmatch(entry.name) and entry.is_file():
                    entry.unlink()
            elif ours and entry.name in _FOLDERS and entry.is_dir() and not entry.is_symlink():
                for leftover in list(entry.rglob(".*")):
                    if not _TEMPORARY.fullmatch(leftover.name):
                        continue
                    if leftover.is_dir() and not leftover.is_symlink():
                        shutil.rmtree(leftover, ignore_errors=True)
                    else:
                        leftover.unlink(missing_ok=True)


def _owner(lock_file: Path) -> str:
    try:
        return lock_file.read_text("utf-8", "replace").strip()[:400] or "unknown"
    except OSError:
        return "unknown"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Package to version, of those that are installed; by default those results depend on."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
