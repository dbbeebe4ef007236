"""The state of a lowering: values by tensor name, layers so far, and typed access to both."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.affine import Affine, Float, Knob, Weights
from fpga_flow.lowering.inputs import InputQuant
from fpga_flow.lowering.ir import FloatArray, Layer
from fpga_flow.lowering.model import position_of, refuse, source_of
from fpga_flow.lowering.thresholds import Folded

Value = Affine | Float | Weights


@dataclass(frozen=True)
class Site(ShortRepr):
    """One activation quantizer, for ``settle``: its thresholds and what could shift them.

    Attributes:
        layer: name of the threshold layer.
        ref: tensor whose integers it compares.
        folded: the thresholds.
        scale: float64 (C,), value of one integer step.
        knobs: the nearest per-channel parameters; several where branches are concatenated.
        constants: float64 (C,), in integer steps: magnitudes added between them and the quantizer.
        roundings: of a float engine, from the codes of the last quantizers to these codes.
    """

    layer: str
    ref: str
    folded: Folded
    scale: FloatArray
    knobs: tuple[Knob, ...]
    constants: FloatArray
    roundings: int


class Context:
    """Walks with the graph; one instance a lowering."""

    def __init__(self, model: ModelWrapper) -> None:
        self.model = model
        self.values: dict[str, Value] = {}
        self.layers: list[Layer] = []
        self.sites: list[Site] = []
        self.input: InputQuant | None = None

    def file_shape(self, tensor: str) -> tuple[int, ...]:
        """Inferred shape of a tensor, without the batch axis."""
        return tuple(int(n) for n in self.model.get_tensor_shape(tensor)[1:])

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of the integers of a tensor: signals (C, L) are maps of height 1."""
        shape = self.file_shape(tensor)
        return (shape[0], 1, shape[1]) if len(shape) == 2 else shape

    def constant(self, node: NodeProto, index: int) -> FloatArray | None:
        """Input ``index`` as float64 if it is a constant (a quantized one dequantized)."""
        name = node.input[index]
        value = self.values.get(name)
        if isinstance(value, Weights):
            # float32 is what the file's consumer sees.
            return (value.codes * value.scale).astype(np.float32).astype(np.float64)
        array = self.model.get_initializer(name)
        if array is None:
            return None
        array = np.asarray(array, dtype=np.float64)
        if np.isnan(array).any():
            raise refuse(node, f"its constant {name!r} holds NaN", "Train the model again")
        return array

    def parameter(self, node: NodeProto, index: int, shape: tuple[int, ...]) -> FloatArray:
        """Input ``index`` as a finite constant, one value a channel of ``shape``: (C,)."""
        array = self.constant(node, index)
        if array is None:
            raise refuse(
                node, f"its input {index} is computed at run time", "Make it a constant parameter"
            )
        return self.per_channel(node, array, shape)

    def per_channel(self, node: NodeProto, array: FloatArray, shape: tuple[int, ...]) -> FloatArray:
        """A constant of ``node`` as one finite value a channel of the integers' ``shape``: (C,)."""
        if len(shape) == 3 and len(self.file_shape(node.output[0])) == 2:
            array = array.reshape((1,) * (3 - array.ndim) + array.shape)[:, :, None]
        return per_channel(node, array, shape)

    def affine(self, node: NodeProto, index: int = 0) -> Affine:
        """Input ``index`` as a value that follows from integers."""
        value = self.values.get(node.input[index])
        if isinstance(value, Affine):
            return value
        if isinstance(value, Float):
            raise refuse(
                node,
                "it reads the image before any quantizer",
                "Put an activation quantizer first (Brevitas: QuantIdentity as first layer)",
            )
        raise refuse(
            node,
            f"its input {index} is a constant where an activation is expected",
            "Exchange the operands in the PyTorch model",
        )

    def pure(self, node: NodeProto, index: int = 0) -> Affine:
        """Input ``index`` as integers times a scale, with nothing pending."""
        value = self.affine(node, index)
        if not value.pure:
            raise refuse(
                node,
                "between it and the last quantizer lies a bias, batch norm or ReLU, so its "
                "input is no integer",
                "Put an activation quantizer in front of it (Brevitas: QuantReLU, QuantIdentity)",
            )
        return value

    def knob(self, node: NodeProto, index: int, channels: int, gain: float) -> Knob | None:
        """Constant input ``index`` as a parameter that can be shifted channel by channel."""
        array = self.model.get_initializer(node.input[index])
        if array is None or np.size(array) != channels:
            return None
        return Knob(str(node.input[index]), np.full(channels, gain))

    def common(self, node: NodeProto, value: Affine) -> dict[str, Any]:
        """Fields every layer has, for a layer that computes ``value``."""
        return {
            "name": str(node.name),
            "source": source_of(node),
            "position": position_of(node),
            "output": str(node.output[0]),
            "shape": value.shape,
            "scale": column(value.scale, value.shape),
            "bias": column(value.bias, value.shape),
            "low": value.low,
            "high": value.high,
            "bits": value.bits,
            "mirrored": not value.clipped and bool(value.scale.all()),
        }

    def emit(self, node: NodeProto, layer: Layer, value: Affine) -> None:
        """Append a layer; ``value`` is what its output tensor means."""
        self.layers.append(layer)
        self.set(node, value)

    def set(self, node: NodeProto, value: Value) -> None:
        """Define the node's output."""
        self.values[node.output[0]] = value

    def emit_reshaped(self, node: NodeProto, source: Affine, shape: tuple[int, ...]) -> Affine:
        """``source`` under another shape and the node's output name."""
        value = source.reshaped(str(node.output[0]), shape)
        if value is None:
            raise refuse(
                node,
                "it mixes channels of different scale or bias into one",
                "Quantize per tensor before it, or flatten to (N, features)",
            )
        return replace(value, knobs=source.knobs if shape[0] == source.shape[0] else ())


def column(array: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """(C,) as (C, 1, 1), to broadcast over a batch of ``shape``."""
    return array.reshape(-1, *[1] * (len(shape) - 1))


def per_channel(node: NodeProto, array: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """A constant that broadcasts over (1, *shape), as one finite value a channel: (C,)."""
    try:
        full = np.broadcast_to(array, (1, *shape))[0].reshape(shape[0], -1)
    except ValueError as e:
        raise refuse(
            node,
            f"its constant of shape {array.shape} does not fit activations of shape {shape}",
            "Use one value, or one a channel",
        ) from e
    if not np.isfinite(full).all() or (full != full[:, :1]).any():
        raise refuse(
            node,
            "its constant varies inside a channel or is infinite",
            "Use one finite value, or one a channel",
        )
    values: FloatArray = full[:, 0]
    return values
