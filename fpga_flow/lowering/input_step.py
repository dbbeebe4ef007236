"""What a host does with an image before hardware takes it, as data of a build or design."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from divqat_brevitas.input_range import UNIT, InputRange
from fpga_flow.lowering.inputs import FloatImages, FloatStep, encode
from fpga_flow.lowering.ir import IntArray
from fpga_flow.lowering.network import Network
from fpga_flow.lowering.quantizers import Quantizer
from fpga_flow.untrusted.onnx_sizes import MAX_ELEMENTS

_ROUNDING = ("ROUND", "FLOOR", "CEIL")


@dataclass(frozen=True, eq=False)
class InputStep:
    """Images to the integers that enter: the network's float steps and its first quantizer.

    Attributes:
        steps: the preamble.
        quantizer: the first quantizer.
        shape: of an image's codes as they enter: (C, H, W) or (features,).
        declared: the values that an image may have.
    """

    steps: tuple[FloatStep, ...]
    quantizer: Quantizer
    shape: tuple[int, ...]
    declared: InputRange = UNIT

    @classmethod
    def of(cls, network: Network, shape: tuple[int, ...]) -> Self:
        """The step of a network whose codes enter in ``shape``."""
        layer = network.input
        return cls(layer.preamble, layer.quantizer, shape, network.input_range)

    @classmethod
    def plain(
        cls,
        scale: float,
        bits: int,
        shape: tuple[int, ...],
        signed: bool = False,
        declared: InputRange = UNIT,
    ) -> Self:
        """``round(x / scale)`` and nothing else.

        Example:
            >>> InputStep.plain(1 / 255, 8, (2,)).codes(np.ones((1, 2), np.float32))
            array([[255, 255]])
        """
        array = np.array(scale, dtype=np.float32)
        return cls((), Quantizer(array, bits, signed, False, "ROUND", False), shape, declared)

    def codes(self, images: FloatImages) -> IntArray:
        """int64 (N, *shape) of float32 images, computed in float32 as QONNX does."""
        return encode(images, self.steps, self.quantizer).reshape(len(images), *self.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputStep) and self.record() == other.record()

    def __hash__(self) -> int:
        return hash(json.dumps(self.record()))

    def record(self) -> dict[str, Any]:
        """The step as JSON values."""
        quantizer = self.quantizer
        return {
            "steps": [step.record() for step in self.steps],
            "scale": quantizer.scale.tolist(),
            "bits": quantizer.bits,
            "signed": quantizer.signed,
            "narrow": quantizer.narrow,
            "rounding": quantizer.rounding,
            "bipolar": quantizer.bipolar,
            "shape": list(self.shape),
            "range": [self.declared.low, self.declared.high],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The step of a ``record``, which may be somebody else's.

        Raises:
            InputError, ValueError, TypeError, KeyError: it is none.
        """
        shape = tuple(record["shape"])
        if not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"shape = {str(shape)[:100]}")
        scale = np.asarray(record["scale"], dtype=np.float32)
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("a scale is no positive number")
        bits = record["bits"]
        if type(bits) is not int or not 1 <= bits <= 32 or record["rounding"] not in _ROUNDING:
            raise ValueError(f"bits = {str(bits)[:100]}")
        steps = tuple(FloatStep.from_record(step) for step in record["steps"])
        if any(math.prod(step.shape) != math.prod(shape) for step in steps):
            raise ValueError("a step changes the number of values")
        np.broadcast_to(scale, (1, *(steps[-1].shape if steps else shape)))
        quantizer = Quantizer(
            scale,
            bits=bits,
            signed=bool(record["signed"]),
            narrow=bool(record["narrow"]),
            rounding=str(record["rounding"]),
            bipolar=bool(record["bipolar"]),
        )
        return cls(steps, quantizer, shape, InputRange.of(record["range"]))
