"""The stitched SystemVerilog design of a network: FINN's generated layers and ours."""

from fpga_flow.rtl.design import Design, Node, Stream

__all__ = ["Design", "Node", "Stream"]
