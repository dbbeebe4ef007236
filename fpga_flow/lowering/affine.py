"""What a tensor is while the graph is walked.

A float tensor between two quantizers is never stored: it is an ``Affine`` function of the
integers of an earlier layer. Batch norm, scales, biases, ReLU only change that function,
until a quantizer turns it into thresholds or the network ends with it.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.inputs import FloatStep
from fpga_flow.lowering.ir import FloatArray, IntArray

AnyArray = npt.NDArray[Any]
SAME_SCALE = 1e-9


@dataclass(frozen=True)
class Knob(ShortRepr):
    """A per-channel parameter of the file that shifts an affine value.

    Attributes:
        initializer: name of the float32 constant in the cleaned model, one element a channel.
        gain: float64 (K,), change of the value for a change of 1 of the parameter.
        first: the channel that the first element shifts; a concatenated branch starts later.
    """

    initializer: str
    gain: FloatArray
    first: int = 0

    @property
    def channels(self) -> slice:
        """The channels that it shifts."""
        return slice(self.first, self.first + len(self.gain))


def binary_exponents(ratio: FloatArray) -> IntArray | None:
    """log2 of each ratio, or None where one is no power of two (to 9 decimal places)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.rint(np.log2(ratio))
        powers = np.abs(ratio / np.exp2(exponents) - 1) <= SAME_SCALE
    return exponents.astype(np.int64) if powers.all() else None


@dataclass(frozen=True)
class Float(ShortRepr):
    """The input image after some float steps, not yet quantized."""

    shape: tuple[int, ...]
    steps: tuple[FloatStep, ...] = ()


@dataclass(frozen=True)
class Weights(ShortRepr):
    """A quantized constant ``codes * scale``; ``scale`` is broadcast to the codes' shape."""

    codes: IntArray
    scale: FloatArray
    bits: int

    def transposed(self, axes: tuple[int, ...]) -> "Weights":
        """With axes permuted."""
        return replace(self, codes=self.codes.transpose(axes), scale=self.scale.transpose(axes))


@dataclass(frozen=True)
class Affine(ShortRepr):
    """``clip(scale * n + bias, floor, ceiling)`` of the integers n of tensor ``ref``.

    All arrays are (C,), C = shape[0]; ``low`` and ``high`` bound n; ``bits`` is n's width.

    Two fields describe how a float engine computes it: ``constants`` is the sum of the magnitudes
    that were added up to ``bias``, and ``roundings`` how many roundings the longest chain of
    operations has, from the codes of the last quantizers on (see ``export.noise``).
    """

    ref: str
    shape: tuple[int, ...]
    bits: int
    low: IntArray
    high: IntArray
    scale: FloatArray
    bias: FloatArray
    floor: FloatArray = field(default_factory=lambda: np.array(-np.inf))
    ceiling: FloatArray = field(default_factory=lambda: np.array(np.inf))
    knobs: tuple[Knob, ...] = ()
    constants: FloatArray = field(default_factory=lambda: np.array(0.0))
    roundings: int = 1

    def __post_init__(self) -> None:
        for name in ("low", "high", "scale", "bias", "floor", "ceiling", "constants"):
            array = np.broadcast_to(getattr(self, name), (self.shape[0],))
            object.__setattr__(self, name, array)

    @property
    def clipped(self) -> bool:
        """Whether a clip is still pending."""
        return bool(np.isfinite(self.floor).any() or np.isfinite(self.ceiling).any())

    @property
    def pure(self) -> bool:
        """Whether the value is its integers up to a scale per channel."""
        return not self.clipped and not self.bias.any() and bool(self.scale.all())

    def times(self, factor: FloatArray) -> "Affine":
        """Multiplied by a factor per channel (or one for all)."""
        with np.errstate(invalid="ignore"):  # 0 * inf: a constant channel needs no clip
            ends = np.stack([self.floor, self.ceiling]) * factor
        gains = np.broadcast_to(factor, self.scale.shape)
        knobs = tuple(replace(k, gain=k.gain * gains[k.channels]) for k in self.knobs)
        return replace(
            self,
            scale=self.scale * factor,
            bias=self.bias * factor,
            floor=np.where(factor == 0, -np.inf, ends.min(axis=0)),
            ceiling=np.where(factor == 0, np.inf, ends.max(axis=0)),
            knobs=knobs,
            constants=self.constants * np.abs(factor),
            roundings=self.roundings + 1,
        )

    def plus(
        self, constant: FloatArray, knob: Knob | None = None, size: FloatArray | None = None
    ) -> "Affine":
        """With a constant per channel added.

        Args:
            constant: float64 (C,).
            knob: the parameter it came from.
            size: magnitudes that ``constant`` is a difference of; None for its own.
        """
        return replace(
            self,
            bias=self.bias + constant,
            floor=self.floor + constant,
            ceiling=self.ceiling + constant,
            knobs=(knob,) if knob else self.knobs,
            constants=self.constants + (np.abs(constant) if size is None else size),
            roundings=self.roundings + 1,
        )

    def clip(self, floor: float, ceiling: float) -> "Affine":
        """Clipped; a bound that the integers' range cannot reach is dropped."""
        ends = np.stack([self.scale * self.low, self.scale * self.high]) + self.bias
        least = np.clip(ends.min(axis=0), self.floor, self.ceiling)
        most = np.clip(ends.max(axis=0), self.floor, self.ceiling)
        # The last clip wins where the ranges do not meet: the channel is constant then.
        lower = np.where(least > ceiling, ceiling, self.floor)
        upper = np.where(most < floor, floor, self.ceiling)
        return replace(
            self,
            floor=np.where(least < floor, floor, lower),
            ceiling=np.where(most > ceiling, ceiling, upper),
        )

    def reshaped(self, ref: str, shape: tuple[int, ...]) -> "Affine | None":
        """As ``shape``, held by tensor ``ref``; None where a scale would vary in a channel."""

        def spread(array: AnyArray) -> AnyArray:
            column = array.reshape(-1, *[1] * (len(self.shape) - 1))
            return np.broadcast_to(column, self.shape).reshape(shape[0], -1)

        floats = [spread(a) for a in (self.scale, self.bias, self.floor, self.ceiling)]
        if any((a != a[:, :1]).any() for a in floats):
            return None
        scale, bias, floor, ceiling = (a[:, 0] for a in floats)
        return Affine(
            ref=ref,
            shape=shape,
            bits=self.bits,
            low=spread(self.low).min(axis=1),
            high=spread(self.high).max(axis=1),
            scale=scale,
            bias=bias,
            floor=floor,
            ceiling=ceiling,
            constants=spread(self.constants).max(axis=1),
            roundings=self.roundings,
        )
