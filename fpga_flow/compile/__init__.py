"""FINN builds in a worker process: streamlined, folded, estimated, generated as RTL code."""

from fpga_flow.compile.build import Estimates, FinnBuild, LayerEstimate, hardware_rows
from fpga_flow.compile.compare import StepComparison, compare_steps
from fpga_flow.compile.compiler import compile_finn
from fpga_flow.compile.errors import BuildError
from fpga_flow.compile.legality import Finding, legality
from fpga_flow.compile.outputs import FinnOutputs, FinnSession, run_step
from fpga_flow.compile.settings import CompileSettings

__all__ = [
    "BuildError",
    "CompileSettings",
    "Estimates",
    "Finding",
    "FinnBuild",
    "FinnOutputs",
    "FinnSession",
    "LayerEstimate",
    "StepComparison",
    "compare_steps",
    "compile_finn",
    "hardware_rows",
    "legality",
    "run_step",
]
