"""The integer network: what ``lower`` returns and every engine executes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.input_range import UNIT, InputRange
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering import reference
from fpga_flow.lowering.inputs import FloatImages, InputQuant, check_images
from fpga_flow.lowering.ir import (
    Conv,
    FloatArray,
    IntArray,
    Layer,
    MatMul,
    Threshold,
    frozen_arrays,
)


@dataclass(frozen=True, eq=False)
class OutputAffine(ShortRepr):
    """The float scale and bias of the logits, applied once, after the last integers.

    Attributes:
        tensor: name of the tensor that holds the last integers.
        scale: float64 (classes,).
        bias: float64 (classes,).
    """

    tensor: str
    scale: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        frozen_arrays(self)

    def logits(self, integers: IntArray) -> npt.NDArray[np.float32]:
        """float32 (N, classes): ``integers * scale + bias`` in float64, rounded once."""
        flat = integers.reshape(len(integers), len(self.scale))
        return (flat * self.scale + self.bias).astype(np.float32)


@dataclass(frozen=True)
class LayerRow:
    """One line of a report.

    Attributes:
        name: layer name, and ``source``, its name in the exported file.
        op: the layer's kind.
        weight_bits: bit width of the weights, where any.
        activation_bits: bit width of the codes a Conv/MatMul/pool/Add reads, a quantizer writes.
        accumulator_bits: bit width of the integers a Conv/MatMul/sum/Add writes.
        input_shape: shape without batch, and ``output_shape``.
        parameters: number of weights or thresholds.
        macs: multiply-accumulates for one image.
    """

    name: str
    source: str
    op: str
    weight_bits: int | None
    activation_bits: int
    accumulator_bits: int | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True, eq=False)
class Network(ShortRepr):
    """A QONNX classifier in integers.

    Attributes:
        input: the first quantizer with what precedes it.
        layers: the others, each after those it reads.
        output: the float scale and bias of the logits.
        input_shape: shape of an image, without batch.
        input_range: the values that an image may have.

    Example:
        >>> from fpga_flow.lowering import lower
        >>> network = lower("model.onnx")
        >>> network.layer("Conv_0").bits, network.layer("Conv_0").weight.shape
        (15, (8, 1, 3, 3))
    """

    input: InputQuant
    layers: tuple[Layer, ...]
    output: OutputAffine
    input_shape: tuple[int, ...]
    input_range: InputRange = UNIT

    @property
    def classes(self) -> int:
        """Number of logits."""
        return len(self.output.scale)

    @property
    def accumulators(self) -> tuple[Layer, ...]:
        """The layers that add: Conv, MatMul, SumPool, Add."""
        return tuple(layer for layer in self.layers if layer.accumulates)

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        layers = (self.input, *self.layers)
        return {layer.output: layer for layer in layers} | {layer.name: layer for layer in layers}

    def layer(self, name: str) -> Layer:
        """The layer of that name, or that writes the tensor of that name.

        Raises:
            InputError: there is none, with the nearest name.
        """
        if name not in self._by_name:
            raise unknown_name("layer or tensor", name, self._by_name)
        return self._by_name[name]

    def to_integers(self, name: str, values: npt.NDArray[Any]) -> IntArray:
        """Integers behind float ``values`` (N, ...) of QONNX tensor ``name``: rint((v-bias)/scale).

        Raises:
            InputError: no layer mirrors that tensor.
        """
        layer = self.layer(name)
        if not layer.mirrored:
            mirrored = (one.output for one in self._by_name.values() if one.mirrored)
            raise unknown_name("mirrored tensor", name, mirrored)
        return layer.to_integers(values)

    def run(self, images: FloatImages) -> dict[str, IntArray]:
        """Every layer's integers by tensor name, in plain int64 NumPy.

        Slow and simple on purpose: it is the definition that fast engines are tested against
        (``fpga_flow.integer`` has them).

        Args:
            images: float32 (N, *input_shape) in ``input_range``.

        Raises:
            InputError: images of another kind.
        """
        images = check_images(images, self.input_shape, self.input_range)
        values = {self.input.output: self.input.codes(images)}
        for layer in self.layers:
            values[layer.output] = reference.run(layer, [values[name] for name in layer.inputs])
        return values

    def predict(self, images: FloatImages) -> npt.NDArray[np.float32]:
        """Logits, float32 (N, classes), by ``run``."""
        return self.output.logits(self.run(images)[self.output.tensor])

    def describe(self) -> list[LayerRow]:
        """One row a layer, in order of execution."""
        rows = [_row(self.input, self.input.shape, self.input.bits)]
        for layer in self.layers:
            before = self.layer(layer.inputs[0])
            rows.append(_row(layer, before.shape, before.bits))
        return rows


def _row(layer: Layer, input_shape: tuple[int, ...], input_bits: int) -> LayerRow:
    parameters = macs = 0
    weight_bits = None
    if isinstance(layer, Conv | MatMul):
        weight_bits, parameters = layer.weight_bits, layer.weight.size
        macs = parameters * int(np.prod(layer.shape[1:], dtype=np.int64))
    elif isinstance(layer, Threshold):
        parameters = layer.thresholds.size
    return LayerRow(
        name=layer.name,
        source=layer.source,
        op=layer.op,
        weight_bits=weight_bits,
        activation_bits=input_bits if layer.accumulates else layer.bits,
        accumulator_bits=layer.bits if layer.accumulates else None,
        input_shape=input_shape,
        output_shape=layer.shape,
        parameters=parameters,
        macs=macs,
    )
