"""A chip as an engine: the same interface as every other one."""

import numpy as np
import numpy.typing as npt

from divqat_brevitas.input_range import InputRange
from fpga_flow.host.driver import ChipDriver
from fpga_flow.lowering import check_images
from fpga_flow.rtl.design import Bytes, Design


class ChipEngine:
    """Runs images on a chip, simulated or real.

    Args:
        design: what the chip holds.
        driver: connected to it.
    """

    name = "chip"

    def __init__(self, design: Design, driver: ChipDriver) -> None:
        self.design = design
        self.driver = driver

    @property
    def input_range(self) -> InputRange:
        """The values that an input may have."""
        return self.design.input_step.declared

    def predict(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), of float32 images (N, *input_shape) in the input range.

        For a design with an answer unit: what a host computes from its codes.

        Raises:
            InputError: images of another kind.
            CheckFailedError: the link loses or damages bytes all the time.
        """
        return self.design.predict(self._run(images))

    def answers(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The integers that leave the chip: accumulators or codes, int64 (N, classes).

        (N, 1) for a design that returns only labels.
        """
        return self.design.answers(self._run(images))

    def accumulators(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.int64]]:
        """The last accumulators, int64 (N, classes), by their layer's name."""
        return {self.design.output_layer: self.design.accumulators(self._run(images))}

    def _run(self, images: npt.NDArray[np.float32]) -> Bytes:
        check_images(images, self.design.input_shape, self.design.input_step.declared)
        return self.driver.run(self.design.beats(images))
