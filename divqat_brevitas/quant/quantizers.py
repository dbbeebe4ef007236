"""Weight and activation quantizers: zero-point 0, with learned scales.

They are named by Brevitas' grammar with the suffix DivQAT, for bit widths of 1, 2, 3, 4 and 8:

| name                                                      | codes     | scale                    |
|-----------------------------------------------------------|-----------|--------------------------|
| `Int4WeightPer{Tensor,Channel}{Float,FixedPoint}`         | -7…7      | one a tensor or channel  |
| `Uint4ActPerTensor{Float,FixedPoint}`                     | 0…15      | one, after a ReLU        |
| `Int4ActPerTensor{Float,FixedPoint}`                      | -8…7      | one, for the rest        |
| `SignedBinaryWeightPer{Tensor,Channel}{Float,FixedPoint}` | -1 and +1 | mean of the sizes        |
| `SignedBinaryActPerTensorConst`                           | -1 and +1 | 1                        |

``FixedPoint`` scales are powers of two. At initialisation each quantizer is bit-identical to its
stock equivalent (``Int8WeightPerTensorFloat`` and its siblings at that bit width): the weights, or
statistics of the first training batches or of a calibration, set the scale, which then learns.
One-bit quantizers are signs (see :mod:`divqat_brevitas.quant.signs`), and integers at any other
``bit_width``. Brevitas' prefixed overrides keep working, such as ``weight_bit_width=3`` on a layer.

Example:
    >>> from brevitas.nn import QuantConv2d
    >>> conv = QuantConv2d(3, 8, 3, weight_quant=Int4WeightPerChannelFloatDivQAT)
    >>> Int4WeightPerChannelFloatDivQAT.__name__, int(conv.weight_quant.bit_width())
    ('Int4WeightPerChannelFloatDivQAT', 4)
"""

from typing import Any

from brevitas.inject.enum import ScalingImplType
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.scaled_int import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)

from divqat_brevitas.quant.fragments import LearnedActScale, LearnedWeightScale
from divqat_brevitas.quant.learned_scale import ImageIntQuant
from divqat_brevitas.quant.signs import SignedBinaryAct, SignedBinaryWeight

__all__ = [
    "Int2ActPerTensorFixedPointDivQAT",
    "Int2ActPerTensorFloatDivQAT",
    "Int2WeightPerChannelFixedPointDivQAT",
    "Int2WeightPerChannelFloatDivQAT",
    "Int2WeightPerTensorFixedPointDivQAT",
    "Int2WeightPerTensorFloatDivQAT",
    "Int3ActPerTensorFixedPointDivQAT",
    "Int3ActPerTensorFloatDivQAT",
    "Int3WeightPerChannelFixedPointDivQAT",
    "Int3WeightPerChannelFloatDivQAT",
    "Int3WeightPerTensorFixedPointDivQAT",
    "Int3WeightPerTensorFloatDivQAT",
    "Int4ActPerTensorFixedPointDivQAT",
    "Int4ActPerTensorFloatDivQAT",
    "Int4WeightPerChannelFixedPointDivQAT",
    "Int4WeightPerChannelFloatDivQAT",
    "Int4WeightPerTensorFixedPointDivQAT",
    "Int4WeightPerTensorFloatDivQAT",
    "Int8ActPerTensorFixedPointDivQAT",
    "Int8ActPerTensorFloatDivQAT",
    "Int8WeightPerChannelFixedPointDivQAT",
    "Int8WeightPerChannelFloatDivQAT",
    "Int8WeightPerTensorFixedPointDivQAT",
    "Int8WeightPerTensorFloatDivQAT",
    "SignedBinaryActPerTensorConstDivQAT",
    "SignedBinaryWeightPerChannelFixedPointDivQAT",
    "SignedBinaryWeightPerChannelFloatDivQAT",
    "SignedBinaryWeightPerTensorFixedPointDivQAT",
    "SignedBinaryWeightPerTensorFloatDivQAT",
    "Uint2ActPerTensorFixedPointDivQAT",
    "Uint2ActPerTensorFloatDivQAT",
    "Uint3ActPerTensorFixedPointDivQAT",
    "Uint3ActPerTensorFloatDivQAT",
    "Uint4ActPerTensorFixedPointDivQAT",
    "Uint4ActPerTensorFloatDivQAT",
    "Uint8ActPerTensorFixedPointDivQAT",
    "Uint8ActPerTensorFloatDivQAT",
    "Uint8ImageDivQAT",
]


def _narrowed(quantizer: Any, bits: int) -> Any:
    """An 8-bit quantizer class at another bit width, under the name of that bit width."""
    name = quantizer.__name__.replace("8", str(bits), 1)
    about = {"__module__": __name__, "__doc__": f"``{quantizer.__name__}`` at {bits} bits."}
    return type(quantizer)(name, (quantizer,), about | {"bit_width": bits})


class Int8WeightPerTensorFloatDivQAT(LearnedWeightScale, Int8WeightPerTensorFloat):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale for the tensor, learned float scale."""


Int4WeightPerTensorFloatDivQAT = _narrowed(Int8WeightPerTensorFloatDivQAT, 4)
Int3WeightPerTensorFloatDivQAT = _narrowed(Int8WeightPerTensorFloatDivQAT, 3)
Int2WeightPerTensorFloatDivQAT = _narrowed(Int8WeightPerTensorFloatDivQAT, 2)


class Int8WeightPerTensorFixedPointDivQAT(LearnedWeightScale, Int8WeightPerTensorFixedPoint):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale for the tensor, learned power-of-two scale."""


Int4WeightPerTensorFixedPointDivQAT = _narrowed(Int8WeightPerTensorFixedPointDivQAT, 4)
Int3WeightPerTensorFixedPointDivQAT = _narrowed(Int8WeightPerTensorFixedPointDivQAT, 3)
Int2WeightPerTensorFixedPointDivQAT = _narrowed(Int8WeightPerTensorFixedPointDivQAT, 2)


class Int8WeightPerChannelFloatDivQAT(LearnedWeightScale, Int8WeightPerChannelFloat):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale an output channel, learned float scale."""


Int4WeightPerChannelFloatDivQAT = _narrowed(Int8WeightPerChannelFloatDivQAT, 4)
Int3WeightPerChannelFloatDivQAT = _narrowed(Int8WeightPerChannelFloatDivQAT, 3)
Int2WeightPerChannelFloatDivQAT = _narrowed(Int8WeightPerChannelFloatDivQAT, 2)


class Int8WeightPerChannelFixedPointDivQAT(LearnedWeightScale, Int8WeightPerChannelFixedPoint):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale an output channel, learned power-of-two scale."""


Int4WeightPerChannelFixedPointDivQAT = _narrowed(Int8WeightPerChannelFixedPointDivQAT, 4)
Int3WeightPerChannelFixedPointDivQAT = _narrowed(Int8WeightPerChannelFixedPointDivQAT, 3)
Int2WeightPerChannelFixedPointDivQAT = _narrowed(Int8WeightPerChannelFixedPointDivQAT, 2)


class Uint8ActPerTensorFloatDivQAT(LearnedActScale, Uint8ActPerTensorFloat):  # type: ignore[misc]
    """8-bit activations in 0…255, learned float scale."""


Uint4ActPerTensorFloatDivQAT = _narrowed(Uint8ActPerTensorFloatDivQAT, 4)
Uint3ActPerTensorFloatDivQAT = _narrowed(Uint8ActPerTensorFloatDivQAT, 3)
Uint2ActPerTensorFloatDivQAT = _narrowed(Uint8ActPerTensorFloatDivQAT, 2)


class Uint8ActPerTensorFixedPointDivQAT(LearnedActScale, Uint8ActPerTensorFixedPoint):  # type: ignore[misc]
    """8-bit activations in 0…255, learned power-of-two scale."""


Uint4ActPerTensorFixedPointDivQAT = _narrowed(Uint8ActPerTensorFixedPointDivQAT, 4)
Uint3ActPerTensorFixedPointDivQAT = _narrowed(Uint8ActPerTensorFixedPointDivQAT, 3)
Uint2ActPerTensorFixedPointDivQAT = _narrowed(Uint8ActPerTensorFixedPointDivQAT, 2)


class Int8ActPerTensorFloatDivQAT(LearnedActScale, Int8ActPerTensorFloat):  # type: ignore[misc]
    """8-bit activations in -128…127, learned float scale."""


Int4ActPerTensorFloatDivQAT = _narrowed(Int8ActPerTensorFloatDivQAT, 4)
Int3ActPerTensorFloatDivQAT = _narrowed(Int8ActPerTensorFloatDivQAT, 3)
Int2ActPerTensorFloatDivQAT = _narrowed(Int8ActPerTensorFloatDivQAT, 2)


class Int8ActPerTensorFixedPointDivQAT(LearnedActScale, Int8ActPerTensorFixedPoint):  # type: ignore[misc]
    """8-bit activations in -128…127, learned power-of-two scale."""


Int4ActPerTensorFixedPointDivQAT = _narrowed(Int8ActPerTensorFixedPointDivQAT, 4)
Int3ActPerTensorFixedPointDivQAT = _narrowed(Int8ActPerTensorFixedPointDivQAT, 3)
Int2ActPerTensorFixedPointDivQAT = _narrowed(Int8ActPerTensorFixedPointDivQAT, 2)


class SignedBinaryWeightPerTensorFloatDivQAT(SignedBinaryWeight, Int8WeightPerTensorFloat):  # type: ignore[misc]
    """1-bit weights, one scale for the tensor, the mean of their sizes."""


class SignedBinaryWeightPerTensorFixedPointDivQAT(
    SignedBinaryWeight,
    Int8WeightPerTensorFixedPoint,  # type: ignore[misc]
):
    """1-bit weights, one scale for the tensor, the power of two from the mean of their sizes."""


class SignedBinaryWeightPerChannelFloatDivQAT(SignedBinaryWeight, Int8WeightPerChannelFloat):  # type: ignore[misc]
    """1-bit weights, one scale an output channel, the mean of their sizes."""


class SignedBinaryWeightPerChannelFixedPointDivQAT(
    SignedBinaryWeight,
    Int8WeightPerChannelFixedPoint,  # type: ignore[misc]
):
    """1-bit weights, one scale an output channel, the power of two from the mean of their sizes."""


class SignedBinaryActPerTensorConstDivQAT(SignedBinaryAct, Int8ActPerTensorFloat):  # type: ignore[misc]
    """1-bit activations -1 and +1: the sign, +1 for 0."""


class Uint8ImageDivQAT(LearnedActScale, Uint8ActPerTensorFloat):  # type: ignore[misc]
    """The network's input: a uint8 image given as pixel/255 in [0, 1].

    The scale is the constant 1/255, so the codes are exactly the pixels and the hardware takes
    raw bytes. The first training batch is looked at: an ``InputRangeWarning`` says where more than
    1 % of it lies outside [0, 1], as normalised images do.
    """

    int_quant = ImageIntQuant
    scaling_impl_type = ScalingImplType.CONST
    scaling_init = 1.0
