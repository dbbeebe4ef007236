"""Quant and BipolarQuant nodes: their parameters, codes and decision levels.

Source: the QONNX operator definitions of Quant (IntQuant) and BipolarQuant.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.general.intquant import resolve_rounding_mode

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.ir import FloatArray, IntArray, frozen_arrays
from fpga_flow.lowering.model import refuse

ACTIVATION_ROUNDINGS = ("ROUND", "FLOOR", "CEIL")
FloatAny = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Quantizer(ShortRepr):
    """A quantizer with zero-point 0; a code c stands for ``c * scale``.

    Attributes:
        scale: float32, broadcastable to the quantized tensor, > 0.
        bits: 1 to 32.
        signed: negative codes exist.
        narrow: the code range is one code smaller (signed: symmetric).
        rounding: QONNX's name of the rounding, upper case: ROUND is half to even.
        bipolar: codes -1 and +1, +1 where x >= 0 (BipolarQuant, and Quant of 1 signed bit).
    """

    scale: npt.NDArray[np.float32]
    bits: int
    signed: bool
    narrow: bool
    rounding: str
    bipolar: bool

    def __post_init__(self) -> None:
        frozen_arrays(self)

    @property
    def low(self) -> int:
        """The smallest code."""
        if self.bipolar:
            return -1
        return -(2 ** (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def high(self) -> int:
        """The largest code."""
        if self.bipolar:
            return 1
        return int(2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1 - self.narrow)

    @property
    def step(self) -> int:
        """Distance of neighbouring codes."""
        return 2 if self.bipolar else 1

    def codes(self, values: FloatAny) -> IntArray:
        """Codes of float32 ``values``, computed in float32 exactly as the ONNX operator does."""
        values = np.asarray(values, dtype=np.float32)
        if self.bipolar:
            return np.where(values >= 0, 1, -1).astype(np.int64)
        clipped = np.clip(values / self.scale, np.float32(self.low), np.float32(self.high))
        rounded: npt.NDArray[np.float32] = resolve_rounding_mode(self.rounding)(clipped)
        return rounded.astype(np.int64)

    def levels(self) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Where the code steps up, in units of the scale.

        Returns:
            float64 (T,) levels, and bool (T,): whether the level itself belongs to the upper
            code. Rounding half to even puts m - 1/2 into code m where m is even.
        """
        if self.bipolar:
            return np.zeros(1), np.ones(1, dtype=bool)
        upper: FloatArray = np.arange(self.low + 1, self.high + 1, dtype=np.float64)
        match self.rounding:
            case "FLOOR":
                return upper, np.ones(len(upper), dtype=bool)
            case "CEIL":
                return upper - 1.0, np.zeros(len(upper), dtype=bool)
            case _:
                return upper - 0.5, np.equal(upper % 2, 0)


def read_quantizer(model: ModelWrapper, node: NodeProto, max_bits: int) -> Quantizer:
    """The parameters of a Quant or BipolarQuant node of a cleaned model.

    Raises:
        LoweringError: scale, zero-point or bit width not constant, scale not positive,
            zero-point not 0, or bit width no integer of 1 to ``max_bits``.
    """
    parameters = [model.get_initializer(name) for name in node.input[1:]]
    if any(p is None for p in parameters):
        raise refuse(
            node,
            "its scale, zero-point or bit width is computed at run time",
            "Use a quantizer with constant parameters in eval mode (no dynamic quantization)",
        )
    scale = np.asarray(parameters[0], dtype=np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise refuse(node, "its scale is not a positive number", "Train or calibrate it again")
    if node.op_type == "BipolarQuant":
        return Quantizer(scale, bits=1, signed=True, narrow=False, rounding="ROUND", bipolar=True)
    if np.any(parameters[1] != 0):
        raise refuse(
            node,
            "its zero-point is not 0",
            "Use a symmetric quantizer (Brevitas: not a Shifted... class)",
        )
    width = np.unique(parameters[2])
    if len(width) != 1 or width[0] != int(width[0]) or not 1 <= width[0] <= max_bits:
        raise refuse(
            node,
            f"bit width {', '.join(f'{w:g}' for w in width)} is not one integer "
            f"from 1 to {max_bits}",
            "Choose such a bit width",
        )
    bits, signed = int(width[0]), bool(attribute(node, "signed", 1))
    return Quantizer(
        scale,
        bits=bits,
        signed=signed,
        narrow=bool(attribute(node, "narrow", 1)),
        rounding=rounding_mode(node, "ROUND"),
        bipolar=bits == 1 and signed,
    )


def rounding_mode(node: NodeProto, default: str) -> str:
    """A node's rounding by QONNX's name, upper case; ROUND is half to even."""
    mode = str(attribute(node, "rounding_mode", default)).upper()
    try:
        resolve_rounding_mode(mode)
    except ValueError as e:
        raise refuse(node, f"unknown rounding mode {mode!r}", "Use ROUND") from e
    return "ROUND" if mode == "HALF_EVEN" else mode
