"""Stock FINN and AMD's tools: a bitfile, where Vivado is installed (not run by us)."""

from fpga_flow.vivado.handover import VivadoBuild, VivadoMissingError, build_vivado

__all__ = ["VivadoBuild", "VivadoMissingError", "build_vivado"]
