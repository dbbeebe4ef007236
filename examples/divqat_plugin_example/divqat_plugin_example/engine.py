"""An engine: the integer engine of a chip that sends only the upper bits of each class's sum."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fpga_flow.integer.engine import IntegerEngine

DROPPED_BITS = 3


class NarrowEngine:
    """Logits from sums whose lowest ``dropped`` bits are 0: cheaper wires, coarser answers.

    Args:
        path: a QONNX file.
        dropped: bits, at least 0.
    """

    name = "narrow"

    def __init__(self, path: Path | str, dropped: int = DROPPED_BITS) -> None:
        self._exact = IntegerEngine(path)
        self._dropped = dropped

    def predict(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), of float32 images (N, C, H, W) in [0, 1]."""
        output = self._exact.network.output
        sums = self._exact.integers(images, [output.tensor])[output.tensor]
        return output.logits(sums >> self._dropped << self._dropped)

    def accumulators(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.int64]]:
        """Integer accumulators by layer name, the last ones as they are sent."""
        found = self._exact.accumulators(images)
        last = list(found)[-1]
        return {**found, last: found[last] >> self._dropped << self._dropped}
