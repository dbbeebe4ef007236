"""Simulation: engines that execute an exported model on batches of images."""

from fpga_flow.engines.engine import ENGINES, Answering, Engine, load_engine

__all__ = ["ENGINES", "Answering", "Engine", "load_engine"]
