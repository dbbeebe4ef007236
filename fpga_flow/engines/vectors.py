"""Reference vectors of a design: images and the integers that have to leave the chip for them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from divqat_brevitas.errors import InputError
from divqat_brevitas.short_repr import ShortRepr
from divqat_brevitas.training.checkpoint import load_tensors, save_tensors
from fpga_flow.compile.checks import check_inputs
from fpga_flow.engines.answering import last_sums
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import gate_images
from fpga_flow.rtl.design import Design

FILE = "vectors.safetensors"


@dataclass(frozen=True)
class ReferenceVectors(ShortRepr):
    """Images and a design's responses to them.

    Attributes:
        images: float32 (N, *input_shape), in the design's input range.
        responses: int64 (N, classes): accumulators or codes; of a design with only labels (N, 1).
        design_digest: the design they were computed for.
    """

    images: npt.NDArray[np.float32]
    responses: npt.NDArray[np.int64]
    design_digest: str

    @classmethod
    def of(cls, onnx: Path, design: Design) -> Self:
        """The vectors of a QONNX file's design, computed by the integer engine.

        The images are those of the integer engine's gate (all low, all high, one channel high,
        noise, rounding ties) and of ``step_check_exact`` (noise and smooth ones).
        """
        engine = IntegerEngine(onnx)
        images = np.concatenate([gate_images(engine.network), check_inputs(engine.network)])
        sums = last_sums(engine, images)
        responses = sums if design.unit is None else design.unit.codes(sums)
        return cls(images, responses, design.digest)

    def save(self, folder: Path) -> None:
        """Write them to a chip's folder."""
        tensors = {"images": self.images, "responses": self.responses}
        save_tensors(
            folder / FILE,
            {name: torch.from_numpy(values) for name, values in tensors.items()},
            {"design": self.design_digest},
        )

    @classmethod
    def load(cls, folder: Path, design: Design) -> Self:
        """Read the vectors of ``design`` from its chip's folder.

        Raises:
            InputError: there are none, they are damaged, or they belong to another design.
        """
        file = folder / FILE
        if not file.is_file():
            raise InputError(f"{folder} holds no reference vectors. Run `divqat compile` again.")
        tensors, record = load_tensors(file)
        if record.get("design") != design.digest:
            raise InputError(
                f"{file} is of another design than {design.folder}. Run `divqat compile` again."
            )
        return cls(tensors["images"].numpy(), tensors["responses"].numpy(), design.digest)
