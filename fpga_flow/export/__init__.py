"""Export to QONNX that cannot lie: one file, plain standard nodes, a parity gate."""

from fpga_flow.export.parity import ParityError, ParityResult, compare, probes
from fpga_flow.export.qonnx import ExportReport, export_qonnx

__all__ = [
    "ExportReport",
    "ParityError",
    "ParityResult",
    "compare",
    "export_qonnx",
    "probes",
]
