"""Folders of fetched files, written completely or not at all, with checksums."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from divqat_brevitas.data.arrays import Labels, Part, Pixels
from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, sha256_file, write_json

CHECKSUMS = "checksums.json"
STALE_SECONDS = 24 * 3600
Content = Mapping[str, "bytes | Pixels | Labels"]


def is_stored(root: Path, name: str) -> bool:
    """Whether ``root/name`` was stored (damaged or not)."""
    return (root / name / CHECKSUMS).is_file()


@contextmanager
def staging(root: Path, name: str) -> Iterator[Path]:
    """A private folder below ``root`` that is gone afterwards, whatever happens.

    One left behind by a killed process is removed a day later, at the next fetch.

    Raises:
        InputError: ``root`` cannot be written, or the disk is full.
    """
    prefix = f".fetch-{name}-"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob(f"{prefix}*"):
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=root) as folder:
            yield Path(folder)
    except BrokenPipeError:  # whoever read the progress lines went away: not the disk
        raise
    except OSError as e:
        raise InputError(
            f"cannot write below {root}: {e.strerror or e}. Free space or choose another folder "
            "with DIVQAT_DATA; what was there before is untouched."
        ) from e


def store(root: Path, name: str, content: Content, work: Path) -> Path:
    """Write files to ``root/name`` in one move; what was there is replaced."""
    new = work / "new"
    new.mkdir()
    for file, value in content.items():
        if isinstance(value, bytes):
            (new / file).write_bytes(value)
        else:
            np.save(new / file, value, allow_pickle=False)
    write_json(new / CHECKSUMS, {file: sha256_file(new / file) for file in content})
    target = root / name
    if target.exists():
        target.rename(work / "old")
    return new.rename(target)


def verified(root: Path, name: str) -> list[Path]:
    """The files of ``root/name`` in the order stored, each checked against its checksum.

    Raises:
        InputError: not there, or a file is missing, truncated or changed.
    """
    return [_verify(root, name, file) for file in _checksums(root, name)]


def stored_part(root: Path, name: str, part: str, classes: int) -> Part:
    """``PART-images.npy`` and ``PART-labels.npy`` of ``root/name``, checked, mapped read-only.

    Raises:
        InputError: as for :func:`verified`.
    """
    images, labels = (
        np.load(_verify(root, name, f"{part}-{kind}.npy"), mmap_mode="r", allow_pickle=False)
        for kind in ("images", "labels")
    )
    return Part.of(images, np.asarray(labels), classes, f"{root / name} ({part})")


def _checksums(root: Path, name: str) -> dict[str, str]:
    path = root / name / CHECKSUMS
    try:
        recorded = read_json(path)
    except InputError as e:
        raise _damaged(path, name, "is missing or not JSON") from e
    if not isinstance(recorded, dict) or not recorded:
        raise _damaged(path, name, "is not a table of checksums")
    return recorded


def _verify(root: Path, name: str, file: str) -> Path:
    path = root / name / file
    expected = _checksums(root, name).get(file)
    try:
        found = sha256_file(path)
    except OSError as e:
        raise _damaged(path, name, f"cannot be read ({e.strerror})") from e
    if found != expected:
        raise _damaged(path, name, f"has sha256 {found}, recorded when it was stored: {expected}")
    return path


def _damaged(path: Path, name: str, what: str) -> InputError:
    return InputError(f"{path} {what}. Run: divqat data fetch {name} (it replaces damaged files)")
