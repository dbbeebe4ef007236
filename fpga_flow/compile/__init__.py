"""FINN builds in a worker process: streamlined, folded, estimated, generated as RTL code."""

from fpga_flow.compile.compare import StepComparison, compare_steps
from fpga_flow.compile.compile_settings import CompileSettings
from fpga_flow.compile.compiler import compile_finn
from fpga_flow.compile.configuration import VivadoSettings, vivado_target
from fpga_flow.compile.finn_build import Estimates, FinnBuild, LayerEstimate, hardware_rows
from fpga_flow.compile.finn_yaml import FinnConfig, finn_config, write_finn_config
from fpga_flow.compile.legality import Finding, legality
from fpga_flow.compile.step_outputs import FinnOutputs, FinnSession, run_step
from fpga_flow.compile.worker_process import BuildError

__all__ = [
    "BuildError",
    "CompileSettings",
    "Estimates",
    "Finding",
    "FinnBuild",
    "FinnConfig",
    "FinnOutputs",
    "FinnSession",
    "LayerEstimate",
    "StepComparison",
    "VivadoSettings",
    "compare_steps",
    "compile_finn",
    "finn_config",
    "hardware_rows",
    "legality",
    "run_step",
    "vivado_target",
    "write_finn_config",
]
