"""The network's border: inputs in, first integer codes out.

The only float arithmetic before the integers: the operators in front of the first quantizer
(the preamble), and that quantizer, in float32 exactly as ONNX computes them. The file declares
which values it takes (``divqat.input_range``); a file without a declaration takes [0, 1].
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import InputError
from divqat_brevitas.input_range import UNIT, InputRange
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.ir import FloatArray, IntArray, Layer, frozen_arrays
from fpga_flow.lowering.quantizers import Quantizer

FloatImages = npt.NDArray[np.float32]
RANGE = "divqat.input_range"
_ARITHMETIC = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide}
_INVERSE = {"Mul": np.divide, "Add": np.subtract, "Sub": np.add, "Div": np.multiply}


@dataclass(frozen=True, eq=False)
class FloatStep(ShortRepr):
    """One float32 operator before the first quantizer.

    Attributes:
        op: "Mul" | "Add" | "Sub" | "Div" with ``constant``, "Reshape" to ``shape``, or "Pad" with
            ``constant``.
        shape: output shape without batch.
        constant: float32, broadcasts over a batch.
        constant_first: the constant is the left operand.
        pads: of "Pad", pixels at the start and end of each axis of a batch.
    """

    op: str
    shape: tuple[int, ...]
    constant: npt.NDArray[np.float32] | None = None
    constant_first: bool = False
    pads: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        frozen_arrays(self)

    def __call__(self, x: FloatImages) -> FloatImages:
        """Apply the step to a batch."""
        if self.constant is None:
            return x.reshape(len(x), *self.shape)
        if self.op == "Pad":
            return np.pad(x, self.pads, constant_values=self.constant)
        operands = (self.constant, x) if self.constant_first else (x, self.constant)
        result: FloatImages = _ARITHMETIC[self.op](*operands)
        return result

    def inverse(self, y: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        """What the step turns into ``y``, in float64 and up to its rounding.

        Args:
            y: (N, *self.shape).
            shape: of an input of the step, without batch.
        """
        if self.constant is None:
            return y.reshape(len(y), *shape)
        if self.op == "Pad":
            inside = (slice(a, size - b) for (a, b), size in zip(self.pads, y.shape, strict=True))
            return y[tuple(inside)]
        constant = self.constant.astype(np.float64)
        if self.constant_first and self.op in ("Sub", "Div"):
            operands, op = (constant, y), _ARITHMETIC[self.op]
        else:
            operands, op = (y, constant), _INVERSE[self.op]
        with np.errstate(divide="ignore", invalid="ignore"):
            result: FloatArray = np.nan_to_num(op(*operands))
        return result

    def record(self) -> dict[str, Any]:
        """The step as JSON."""
        constant = None if self.constant is None else self.constant.tolist()
        return {
            "op": self.op,
            "shape": list(self.shape),
            "constant": constant,
            "constant_first": self.constant_first,
            "pads": [list(ends) for ends in self.pads],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "FloatStep":
        """The step of a ``record``.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        shape, constant = tuple(int(n) for n in record["shape"]), record["constant"]
        if constant is not None and record["op"] not in (*_ARITHMETIC, "Pad"):
            raise ValueError(f"op = {str(record['op'])[:100]}")
        array = None if constant is None else np.array(constant, dtype=np.float32)
        if array is not None and np.broadcast_shapes(array.shape, (1, *shape)) != (1, *shape):
            raise ValueError(f"a constant of shape {array.shape} for inputs of shape {shape}")
        pads = tuple((int(a), int(b)) for a, b in record["pads"])
        return cls(str(record["op"]), shape, array, bool(record["constant_first"]), pads)


def encode(images: FloatImages, steps: Sequence[FloatStep], quantizer: Quantizer) -> IntArray:
    """Integer codes (N, *shape) of float32 images: the whole float part of a network."""
    for step in steps:
        images = step(images)
    return quantizer.codes(images)


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
        codes = encode(images, self.preamble, self.quantizer)
        return codes.reshape(len(codes), *self.shape)

    def ties(self, count: int, shape: tuple[int, ...]) -> FloatImages:
        """Inputs whose values sit on the quantizer's rounding ties, or a float32 step beside them.

        Args:
            count: inputs.
            shape: of one input, without batch.

        Returns:
            float32 (count, *shape); the same every time, from any range.
        """
        rng = np.random.default_rng(0)
        q = self.quantizer
        shapes = [shape, *(step.shape for step in self.preamble)]
        codes = rng.integers(q.low, max(q.low + 1, q.high), (count, *shapes[-1]))
        values = np.asarray((codes + 0.5) * q.scale, dtype=np.float64)
        for step, before in zip(reversed(self.preamble), reversed(shapes[:-1]), strict=True):
            values = step.inverse(values, before)
        inputs, inf = values.astype(np.float32), np.float32(np.inf)
        # The inverse rounds: one of the neighbours lands on the tie where it does not.
        beside = np.nextafter(inputs, np.where(rng.random(inputs.shape) < 0.5, inf, -inf))
        return np.where(rng.random(inputs.shape) < 0.5, inputs, beside)


def input_range_of(model: ModelWrapper) -> InputRange:
    """The input range that a file declares; [0, 1] where it does not.

    Raises:
        InputError: the declaration is damaged.
    """
    text = model.get_metadata_prop(RANGE)
    if text is None:
        return UNIT
    try:
        return InputRange.of(json.loads(text))
    except (ValueError, RecursionError) as e:
        raise InputError(
            f"the file declares its input range ({RANGE}) as {str(text)[:100]!r}, which is no "
            "pair of numbers. Export the model again."
        ) from e


def declare_input_range(model: ModelWrapper, declared: InputRange) -> None:
    """Write the range into the model; [0, 1] is what a file without a declaration means."""
    if declared != UNIT:
        model.set_metadata_prop(RANGE, json.dumps([declared.low, declared.high]))


def check_images(
    images: npt.NDArray[Any], shape: tuple[int, ...], declared: InputRange = UNIT
) -> FloatImages:
    """Validate a batch for an engine.

    Args:
        images: float32 (N, *shape) in the declared range.
        shape: shape of one input, without batch.
        declared: the network's input range.

    Returns:
        the same array.

    Raises:
        InputError: no array, another dtype or shape, NaN, or values outside the declared range.

    Example:
        >>> check_images(np.zeros((1, 1, 8, 8), np.float32), (1, 8, 8)).shape
        (1, 1, 8, 8)
    """
    expected = f"float32 (N, {', '.join(map(str, shape))}) in {declared}"
    if not isinstance(images, np.ndarray) or images.dtype != np.float32:
        found = getattr(images, "dtype", type(images).__name__)
        pixels = " / 255" if declared == UNIT else ""
        raise InputError(
            f"images are {found}, but {expected} is expected. "
            f"For uint8 pixels: images.astype(numpy.float32){pixels}."
        )
    if images.ndim != len(shape) + 1 or images.shape[1:] != shape:
        raise InputError(f"images have shape {images.shape}, but {expected} is expected.")
    if not declared.holds(images):
        low, high = float(images.min()), float(images.max())
        remedy = (
            "Divide uint8 pixels by 255; remove NaN. A network that takes other values declares "
            "them: export_qonnx(..., input_range=(low, high))"
            if declared == UNIT
            else "That range was declared by export_qonnx(..., input_range=...): scale the "
            "inputs to it, or export the model with the range that it takes; remove NaN"
        )
        raise InputError(
            f"images hold values from {low:g} to {high:g}, but {expected} is expected. {remedy}."
        )
    return images
