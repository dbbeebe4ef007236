"""The network's border: images in, first integer codes out.

The only float arithmetic before the integers: the operators in front of the first quantizer,
and that quantizer, in float32 exactly as ONNX computes them.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError
from fpga_flow.lowering.ir import IntArray, Layer, frozen_arrays
from fpga_flow.lowering.quantizers import Quantizer

FloatImages = npt.NDArray[np.float32]
_ARITHMETIC = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide}


@dataclass(frozen=True, eq=False)
class FloatStep:
    """One float32 operator before the first quantizer.

    Attributes:
        op: "Mul" | "Add" | "Sub" | "Div" with ``constant``, or "Reshape" to ``shape``.
        shape: output shape without batch.
        constant: float32, broadcasts over a batch.
        constant_first: the constant is the left operand.
    """

    op: str
    shape: tuple[int, ...]
    constant: npt.NDArray[np.float32] | None = None
    constant_first: bool = False

    def __post_init__(self) -> None:
        frozen_arrays(self)

    def __call__(self, x: FloatImages) -> FloatImages:
        """Apply the step to a batch."""
        if self.constant is None:
            return x.reshape(len(x), *self.shape)
        operands = (self.constant, x) if self.constant_first else (x, self.constant)
        result: FloatImages = _ARITHMETIC[self.op](*operands)
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class InputQuant(Layer):
    """The first quantizer, with the float ``preamble`` before it (such as 2 * x - 1).

    ``quantizer`` has its scale, bit width, signedness and rounding.
    """

    op: ClassVar[str] = "InputQuant"

    quantizer: Quantizer
    preamble: tuple[FloatStep, ...]

    def codes(self, images: FloatImages) -> IntArray:
        """Integer codes (N, *shape) of float32 images."""
        for step in self.preamble:
            images = step(images)
        return self.quantizer.codes(images)


def check_images(images: npt.NDArray[Any], shape: tuple[int, ...]) -> FloatImages:
    """Validate a batch for an engine.

    Args:
        images: float32 (N, *shape) in [0, 1].
        shape: shape of one image, without batch.

    Returns:
        the same array.

    Raises:
        InputError: no array, another dtype or shape, NaN, or values outside [0, 1].

    Example:
        >>> check_images(np.zeros((1, 1, 8, 8), np.float32), (1, 8, 8)).shape
        (1, 1, 8, 8)
    """
    expected = f"float32 (N, {', '.join(map(str, shape))}) in [0, 1]"
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        found = getattr(images, "dtype", type(images).__name__)
        raise InputError(
            f"images are {found}, but {expected} is expected. "
            "For uint8 pixels: images.astype(numpy.float32) / 255."
        )
    if images.ndim != len(shape) + 1 or images.shape[1:] != shape:
        raise InputError(f"images have shape {images.shape}, but {expected} is expected.")
    if images.size:
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):  # NaN fails too
            raise InputError(
                f"images hold values from {low:g} to {high:g}, but {expected} is expected. "
                "Divide uint8 pixels by 255; remove NaN."
            )
    return images
