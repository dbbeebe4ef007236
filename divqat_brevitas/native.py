"""C++ beside a Python module, compiled by the first process that needs it."""

import ctypes
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from platform import uname

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import replacing, sha256_text

COMPILERS = ("g++", "c++", "clang++")
# Without contraction: numbers are rounded as NumPy and PyTorch round them. Integers wrap.
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
COMMAND = (*_FLAGS, "-fwrapv", "-std=c++17", "-shared", "-fPIC")


def cache_folder(name: str) -> Path:
    """The folder ``name`` in $DIVQAT_CACHE, else in the user's cache folder."""
    if chosen := os.environ.get("DIVQAT_CACHE"):
        return Path(chosen).expanduser() / name
    folder = os.environ.get("XDG_CACHE_HOME")
    return (Path(folder) if folder else Path.home() / ".cache") / "divqat" / name


@cache
def processor() -> str:
    """Model and instructions of the first core, where the system shows them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return uname().processor
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")
    return "\n".join(line for line in text.splitlines() if line.startswith(wanted))


def compiled(source: Path, folder: Path) -> ctypes.CDLL | None:
    """A C++ file as a library for this processor, kept by its content.

    Args:
        source: the file.
        folder: of the libraries.

    Returns:
        None where there is no compiler, it knows less, or the folder cannot be written.
    """
    content = sha256_text("\n".join([source.read_text("utf-8"), *COMMAND, processor()]))
    path = folder / f"{source.stem}-{content[:32]}.so"
    try:
        if not path.is_file():
            compiler = next(filter(None, map(shutil.which, COMPILERS)))
            with replacing(path) as growing:
                command = [compiler, *COMMAND, str(source), "-o", str(growing)]
                subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(str(path))
    except (StopIteration, subprocess.CalledProcessError, InputError, OSError):
        return None
