"""From a trained quantized network to hardware: export, compile, simulate, attack, report.

The names below are imported when first used, so that the command line stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpga_flow.api.building import build
    from fpga_flow.api.checking import check
    from fpga_flow.api.running import attack, run
    from fpga_flow.api.sweeping import sweep
    from fpga_flow.engines import load_engine
    from fpga_flow.export import export_qonnx

_HOMES = {
    "attack": "fpga_flow.api.running",
    "build": "fpga_flow.api.building",
    "check": "fpga_flow.api.checking",
    "export_qonnx": "fpga_flow.export",
    "load_engine": "fpga_flow.engines",
    "run": "fpga_flow.api.running",
    "sweep": "fpga_flow.api.sweeping",
}

__all__ = ["attack", "build", "check", "export_qonnx", "load_engine", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
