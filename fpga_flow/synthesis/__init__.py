"""Synthesis: a hardware design to a netlist and a bitstream, with only open tools."""

from fpga_flow.synthesis.advice import NoBitstreamError, Shortfall
from fpga_flow.synthesis.bitstream_report import BitstreamReport, hardware_rows, layer_rows
from fpga_flow.synthesis.flow import build_bitstream
from fpga_flow.synthesis.top import ChipSources

__all__ = [
    "BitstreamReport",
    "ChipSources",
    "NoBitstreamError",
    "Shortfall",
    "build_bitstream",
    "hardware_rows",
    "layer_rows",
]
