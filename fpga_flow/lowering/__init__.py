"""QONNX to integers and thresholds: below every other stage.

``lower`` gives the integer network, ``clean`` the QONNX model with the names it uses,
``settle`` moves thresholds out of float noise's way.
"""

from fpga_flow.lowering.inputs import check_images, declare_input_range, input_range_of
from fpga_flow.lowering.ir import Layer
from fpga_flow.lowering.lower import lower
from fpga_flow.lowering.model import LoweringError, clean, load_model, source_of
from fpga_flow.lowering.network import LayerRow, Network, OutputAffine
from fpga_flow.lowering.settle import Settled, settle, undecided

__all__ = [
    "Layer",
    "LayerRow",
    "LoweringError",
    "Network",
    "OutputAffine",
    "Settled",
    "check_images",
    "clean",
    "declare_input_range",
    "input_range_of",
    "load_model",
    "lower",
    "settle",
    "source_of",
    "undecided",
]
