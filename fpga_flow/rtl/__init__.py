"""The stitched SystemVerilog design of a network: FINN's generated layers and ours."""

from fpga_flow.rtl.design import Design, Node, Stream
from fpga_flow.rtl.design_settings import DesignSettings
from fpga_flow.rtl.generate import generate_design
from fpga_flow.rtl.restitch import restitch

__all__ = ["Design", "DesignSettings", "Node", "Stream", "generate_design", "restitch"]
