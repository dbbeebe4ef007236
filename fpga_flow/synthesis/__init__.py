"""Synthesis: a hardware design to a netlist and a bitstream, with only open tools."""

from fpga_flow.synthesis.bitstream_report import BitstreamReport, hardware_rows
from fpga_flow.synthesis.flow import NoBitstreamError, Shortfall, build_bitstream
from fpga_flow.synthesis.synth import ChipSources

__all__ = [
    "BitstreamReport",
    "ChipSources",
    "NoBitstreamError",
    "Shortfall",
    "build_bitstream",
    "hardware_rows",
]
