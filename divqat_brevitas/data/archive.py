"""Read named members of a .tgz or .deb straight from the archive; nothing is extracted."""

import fnmatch
import io
import lzma
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from divqat_brevitas.errors import CheckFailedError


def read_members(path: Path, pattern: str) -> dict[str, bytes]:
    """Contents of the regular files whose full member name matches ``pattern``.

    Args:
        path: a gzipped tar file (npm) or a Debian package.
        pattern: a shell pattern over the whole name, without a leading "./".

    Returns:
        Content by base name, sorted by it.

    Raises:
        CheckFailedError: not such an archive, a matching member that is a link or leaves the
            archive ("..", absolute), two of one base name, or none at all.
    """
    found: dict[str, bytes] = {}
    try:
        source = _deb_data(path) if path.suffix == ".deb" else path.open("rb")
        with source, tarfile.open(fileobj=source, mode="r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isdir() or not fnmatch.fnmatchcase(name, pattern):
                    continue
                parts = PurePosixPath(name)
                if parts.is_absolute() or ".." in parts.parts or not member.isfile():
                    raise CheckFailedError(f"{path.name}: refused the unsafe member {name!r}.")
                if parts.name in found:
                    raise CheckFailedError(f"{path.name}: holds {parts.name!r} twice.")
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                found[parts.name] = content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as e:
        raise CheckFailedError(
            f"{path.name} is not a readable archive ({type(e).__name__}: {e})."
        ) from e
    if not found:
        raise CheckFailedError(f"{path.name}: holds nothing named {pattern!r}.")
    return dict(sorted(found.items()))


def _deb_data(path: Path) -> io.BytesIO:
    """The data.tar of a Debian package, which is an ``ar`` archive: see deb(5) and ar(5)."""
    with path.open("rb") as f:
        if f.read(8) != b"!<arch>\n":
            raise ValueError("not a Debian package")
        while len(header := f.read(60)) == 60:
            size = int(header[48:58])
            if header.startswith(b"data.tar"):
                return io.BytesIO(f.read(size))
            f.seek(size + size % 2, io.SEEK_CUR)  # members begin on even offsets
    raise ValueError("no data.tar in the Debian package")
