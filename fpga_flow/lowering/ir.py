"""The integer network's layers: frozen dataclasses of immutable arrays.

Every layer computes integers from integers. Where ``layer.tensor`` is a name, the QONNX tensor
of that name has the value ``integers * layer.scale + layer.bias``: parity checks, the FINN
comparison and RTL test benches address accumulators and activation codes by it.
Shapes leave out the batch axis; C is the first axis of ``shape`` (channels, or features).
A signal (C, L) of the file is a map (C, 1, L) here.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from divqat_brevitas.short_repr import ShortRepr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def frozen_arrays(instance: Any) -> None:
    """Make every array of a frozen dataclass read-only, copying the writeable ones."""
    for field in fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value = value.copy()
            value.setflags(write=False)
            object.__setattr__(instance, field.name, value)


def bits_for(low: int, high: int) -> int:
    """Bits that hold every integer of [low, high]; two's complement where ``low`` < 0.

    Example:
        >>> bits_for(-128, 127), bits_for(0, 255), bits_for(-1, 1)
        (8, 8, 2)
    """
    if low < 0:
        return 1 + max((-low - 1).bit_length(), max(high, 0).bit_length())
    return max(1, high.bit_length())


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer(ShortRepr):
    """What all layers have.

    Attributes:
        name: the ONNX node's name in the cleaned model, such as ``Conv_0``.
        source: the node's name in the exported file (tells the PyTorch module).
        position: where it stands there: layers sorted by it are in the order that torch ran them.
        inputs: tensor names of the integers it reads.
        output: tensor name of the integers it writes.
        shape: output shape without batch.
        scale: float64, (C, 1, 1) or (C,): broadcasts over a batch of outputs.
        bias: as ``scale``; float part of the tensor's value that a later layer folds in.
        low: int64 (C,), guaranteed minimum of each channel.
        high: int64 (C,), guaranteed maximum of each channel.
        bits: of a quantizer's codes as declared; of an accumulator, what its range needs.
        mirrored: whether the QONNX tensor ``output`` is ``integers * scale + bias``. Not so
            for a max-pool whose pending ReLU is folded into the next thresholds.
    """

    op: ClassVar[str]
    accumulates: ClassVar[bool] = False

    name: str
    source: str
    position: int = 0
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    scale: FloatArray
    bias: FloatArray
    low: IntArray
    high: IntArray
    bits: int
    mirrored: bool = True

    def __post_init__(self) -> None:
        frozen_arrays(self)

    @property
    def tensor(self) -> str | None:
        """The QONNX tensor this layer mirrors, or None."""
        return self.output if self.mirrored else None

    @property
    def signed(self) -> bool:
        """Whether negative integers occur."""
        return int(self.low.min()) < 0

    def to_integers(self, values: npt.NDArray[Any]) -> IntArray:
        """The integers behind float ``values`` (N, ...) of the mirrored tensor: rint."""
        floats = np.asarray(values, dtype=np.float64).reshape(len(values), *self.shape)
        exact = (floats - self.bias) / self.scale
        return np.rint(exact).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Layer):
    """2-D convolution; ``weight`` int64 (out, in / groups, kh, kw), ``pads`` top left bottom right.

    Padding is the integer 0. ``weight_bits`` is the weight quantizer's bit width (1 = bipolar).
    """

    op: ClassVar[str] = "Conv"
    accumulates: ClassVar[bool] = True

    weight: IntArray
    weight_bits: int
    strides: Pair
    pads: Pads
    dilations: Pair
    groups: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MatMul(Layer):
    """Fully connected; ``weight`` int64 (in, out)."""

    op: ClassVar[str] = "MatMul"
    accumulates: ClassVar[bool] = True

    weight: IntArray
    weight_bits: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Threshold(Layer):
    """An activation quantizer with everything folded into it that came before.

    ``code = base + step * count(signs * n >= thresholds)``, per channel.
    ``signs`` int64 (C,) of ±1; ``thresholds`` int64 (C, T), ascending, clamped to
    the range of ``signs * n`` (its minimum: always passed; its maximum + 1: never).
    """

    op: ClassVar[str] = "Threshold"

    thresholds: IntArray
    signs: IntArray
    base: int
    step: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Layer):
    """``signs * max(signs * n)`` over windows: a minimum where a channel's scale is negative.

    ``pads`` (top left bottom right) never win.
    """

    op: ClassVar[str] = "MaxPool"

    signs: IntArray
    kernel: Pair
    strides: Pair
    pads: Pads
    dilations: Pair


@dataclass(frozen=True, kw_only=True, eq=False)
class SumPool(Layer):
    """Average pooling as ``factors * sum`` over windows; the divisor is in ``scale``. Padding is 0.

    ``factors`` int64 (H', W'), ≥ 1: over 1 for windows that divide by fewer pixels than others.
    """

    op: ClassVar[str] = "SumPool"
    accumulates: ClassVar[bool] = True

    kernel: Pair
    strides: Pair
    pads: Pads
    factors: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Layer):
    """Residual sum ``sum(n_i << shifts[i])``; ``shifts`` int64 (2, C), ≥ 0."""

    op: ClassVar[str] = "Add"
    accumulates: ClassVar[bool] = True

    shifts: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Layer):
    """Branches one behind the other along C: ``n_i << shifts``; ``shifts`` int64 (C,), ≥ 0."""

    op: ClassVar[str] = "Concat"

    shifts: IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Pad(Layer):
    """The integer ``fill`` around a map; ``pads`` top left bottom right."""

    op: ClassVar[str] = "Pad"

    pads: Pads
    fill: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Layer):
    """Flatten and its kin: the same integers in the same order, as (N, *shape)."""

    op: ClassVar[str] = "Reshape"
