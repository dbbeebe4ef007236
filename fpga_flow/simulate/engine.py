"""Engines: one interface to everything that executes a QONNX file."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import unknown_name

ENGINES = ("integer", "qonnx", "finn", "rtl")


class Engine(Protocol):
    """Executes a classifier on batches of images.

    Attributes:
        name: which engine this is, for reports.
    """

    name: str

    def predict(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), of float32 images (N, C, H, W) in [0, 1]."""
        ...

    def accumulators(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.int64]]:
        """Integer accumulators (N, ...) by layer name; all of them stay in memory."""
        ...


def load_engine(path: Path | str, engine: str = "integer") -> Engine:
    """Load a QONNX file into an engine.

    Args:
        path: a QONNX file; for "finn" and "rtl" also the folder of a FINN build.
        engine: "integer" (exact, fast), "qonnx" (QONNX's own execution, float), "finn" (FINN's
            graph after streamlining, needs finn-plus), "rtl" (the generated hardware in
            Verilator; takes a hardware design's or a FINN build's folder too).

    Raises:
        InputError: unknown engine, or a file that is no QONNX model.
        LoweringError: a model that cannot become integers, with the node named.
        ToolMissingError: the engine's packages are not installed.

    Example:
        >>> engine = load_engine("model.onnx")  # doctest: +SKIP
        >>> engine.predict(images).argmax(axis=1)  # doctest: +SKIP
        array([7, 2, 1])
    """
    match engine:
        case "integer":
            from fpga_flow.simulate.integer import IntegerEngine

            return IntegerEngine(path)
        case "qonnx":
            from fpga_flow.export.execution import QonnxEngine

            return QonnxEngine(path)
        case "finn":
            from fpga_flow.simulate.finn import FinnEngine

            return FinnEngine(path)
        case "rtl":
            from fpga_flow.simulate.rtl import RtlEngine

            return RtlEngine(path)
        case _:
            raise unknown_name("engine", engine, ENGINES)
