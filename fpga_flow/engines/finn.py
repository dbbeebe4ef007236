"""The FINN engine: FINN's own graph, as it is turned into RTL, executed in a worker process."""

import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from divqat_brevitas.input_range import InputRange
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn
from fpga_flow.compile.step_outputs import FinnOutputs, FinnSession


class FinnEngine:
    """Executes the last step's model of a FINN build.

    The worker process starts with the first batch and ends with ``close`` or the program.

    Args:
        path: folder of a finished build, or a QONNX file, which is then built with default
            settings in a temporary folder.

    Raises:
        InputError: no finished build, no QONNX file, or a network FINN has no hardware for.
        ToolMissingError: finn-plus is not installed.
        BuildError: the build failed.

    Example:
        >>> engine = FinnEngine(Path("runs/demo/compile/qat"))  # doctest: +SKIP
        >>> engine.predict(images).argmax(axis=1)  # doctest: +SKIP
        array([7, 2, 1])
    """

    name = "finn"

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        if path.is_file():
            self._temporary = tempfile.TemporaryDirectory(prefix="divqat-finn-")
            folder = Path(self._temporary.name) / "build"
            self.build = compile_finn(path, folder, CompileSettings())
        else:
            self.build = FinnBuild.load(path)

    @cached_property
    def _session(self) -> FinnSession:
        return FinnSession(self.build)

    @property
    def input_range(self) -> InputRange:
        """The values that an input may have."""
        return self.build.input_step.declared

    def predict(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), of float32 images (N, *shape) in the input range."""
        return self._run(images).logits

    def accumulators(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.int64]]:
        """Last accumulators (N, classes) by layer name.

        Only the last: FINN negates weights of other layers where a batch-norm factor is
        negative.
        """
        return {self.build.output_layer: self._run(images).accumulators}

    def close(self) -> None:
        """Stop the worker process."""
        if "_session" in self.__dict__:
            self._session.close()
            del self._session

    def _run(self, images: npt.NDArray[np.float32]) -> FinnOutputs:
        return self._session.run(list(self.build.steps)[-1], images)
