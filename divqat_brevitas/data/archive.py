"""Read named members of a .tgz or .deb straight from the archive; nothing is extracted."""

import bz2
import fnmatch
import gzip
import io
import lzma
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from divqat_brevitas.errors import CheckFailedError

MAX_BYTES = 2**30  # unpacked, all together; the largest archive fetched is 140 MB of pictures
MAX_MEMBERS = 100_000


def read_members(path: Path, pattern: str, *, whole: bool = False) -> dict[str, bytes]:
    """Contents of the regular files whose full member name matches ``pattern``.

    Args:
        path: a gzipped tar file (npm) or a Debian package.
        pattern: a shell pattern over the full name, without a leading "./".
        whole: keep the folders, where base names repeat.

    Returns:
        Content by base name, or by full name, sorted by it.

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
