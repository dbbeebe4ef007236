"""Simulation: engines that execute an exported model on batches of images."""

from fpga_flow.simulate.engine import ENGINES, Engine, load_engine

__all__ = ["ENGINES", "Engine", "load_engine"]
