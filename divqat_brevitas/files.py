"""Files that appear whole or not at all, and content hashes."""

import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import InputError

_UTF8 = "utf-8-sig"  # reads UTF-8 with a byte order mark, as Windows editors write it, or without
_MAX_TOML = 256 * 1024  # bytes; the parser takes quadratic time on a hostile file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    A crash, a full disk or Ctrl-C inside the block leaves the old file as it was.

    Raises:
        InputError: the folder cannot be written (disk full, read-only), with the folder named.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept: writers such as numpy and onnx look at it.
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(fd)
    except OSError as e:
        raise _disk_error(path, e) from e
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        # mkstemp makes files private; the result gets the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as e:
        raise _disk_error(path, e) from e
    finally:
        temporary.unlink(missing_ok=True)


def _disk_error(path: Path, e: OSError) -> InputError:
    return InputError(
        f"cannot write {path}: {e.strerror or e}. Free space or make the folder writable, "
        "then run the same command again; what was there before is untouched."
    )


@contextmanager
def in_place_of(folder: Path, kind: str, *records: str) -> Iterator[None]:
    """Let the block replace ``folder``, which is new, empty, or already of the same kind.

    Args:
        folder: what is replaced.
        kind: what it holds, for messages, such as "FINN build".
        records: files in it, any of which tells that it is of that kind.

    Raises:
        InputError: the folder holds something else, or the block cannot write.
    """
    ours = any((folder / name).exists() for name in records)
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} holds something else than a {kind}, which would be replaced. "
            "Name an empty or new folder."
        )
    try:
        yield
    except OSError as e:
        raise InputError(
            f"cannot write the {kind} {folder}: {e.strerror or e}. Free space or make the folder "
            "writable, then run the same command again."
        ) from e


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: missing, unreadable or not JSON, with the place named.
    """
    try:
        return json.loads(Path(path).read_text(encoding=_UTF8))
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist.") from e
    except OSError as e:  # a folder, no permission, a name too long
        raise InputError(f"{path} cannot be read ({e.strerror or e}). Check the path.") from e
    except (ValueError, RecursionError) as e:  # not UTF-8, a NUL in the path, nested too deeply
        raise InputError(f"{path} is not valid JSON ({e}). Delete it or restore it.") from e


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Read a TOML file, with a byte order mark or without.

    Raises:
        InputError: missing, unreadable, larger than 256 KiB or not TOML.
    """
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > _MAX_TOML:
            raise InputError(f"{path} is larger than {_MAX_TOML} bytes: no {kind}.")
        text = path.read_text(encoding=_UTF8)
    except FileNotFoundError as e:
        raise InputError(f"there is no {kind} {path}.") from e
    except (OSError, ValueError) as e:  # a folder, no permission, not UTF-8, a NUL in the path
        raise InputError(f"cannot read the {kind} {path}: {e}.") from e
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as e:  # numbers and nests beyond Python's limits, too
        raise InputError(f"{path} is not valid TOML: {e}.") from e


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of a text (UTF-8), in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
