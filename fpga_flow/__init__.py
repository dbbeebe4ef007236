"""From a trained quantized network to hardware: export, compile, simulate, attack, report.

The names below are imported when first used, so that the command line stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpga_flow.api import attack, board_selftest, build, check, run, sweep
    from fpga_flow.engines import load_engine
    from fpga_flow.export import export_qonnx
    from fpga_flow.serve.ownership import check_ownership, commit_ownership

_FUNCTIONS = ("attack", "board_selftest", "build", "check", "run", "sweep")
_HOMES = dict.fromkeys(_FUNCTIONS, "fpga_flow.api") | {
    "check_ownership": "fpga_flow.serve.ownership",
    "commit_ownership": "fpga_flow.serve.ownership",
    "export_qonnx": "fpga_flow.export",
    "load_engine": "fpga_flow.engines",
}

__all__ = [
    "attack",
    "board_selftest",
    "build",
    "check",
    "check_ownership",
    "commit_ownership",
    "export_qonnx",
    "load_engine",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
