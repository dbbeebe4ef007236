"""Activation quantizers: per tensor, zero-point 0, with learned scales.

Unsigned (``Uint…``) for what follows a ReLU, signed (``Int…``) for the rest. At
initialisation each is bit-identical to its stock equivalent (``Uint8ActPerTensorFloat`` and
its siblings at that bit width): statistics of the first training batches (or of a
calibration) set the scale, which then learns.
"""

from brevitas.inject.enum import ScalingImplType
from brevitas.quant.fixed_point import Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
from brevitas.quant.scaled_int import Int8ActPerTensorFloat, Uint8ActPerTensorFloat

from divqat_brevitas.quant.fragments import LearnedActScale
from divqat_brevitas.quant.learned_scale import ImageIntQuant


class Uint8ActPerTensorFloatDivQAT(LearnedActScale, Uint8ActPerTensorFloat):  # type: ignore[misc]
    """8-bit activations in 0…255, learned float scale."""


class Uint4ActPerTensorFloatDivQAT(Uint8ActPerTensorFloatDivQAT):
    """4-bit activations in 0…15, learned float scale."""

    bit_width = 4


class Uint3ActPerTensorFloatDivQAT(Uint8ActPerTensorFloatDivQAT):
    """3-bit activations in 0…7, learned float scale."""

    bit_width = 3


class Uint2ActPerTensorFloatDivQAT(Uint8ActPerTensorFloatDivQAT):
    """2-bit activations in 0…3, learned float scale."""

    bit_width = 2


class Uint8ActPerTensorFixedPointDivQAT(LearnedActScale, Uint8ActPerTensorFixedPoint):  # type: ignore[misc]
    """8-bit activations in 0…255, learned power-of-two scale."""


class Uint4ActPerTensorFixedPointDivQAT(Uint8ActPerTensorFixedPointDivQAT):
    """4-bit activations in 0…15, learned power-of-two scale."""

    bit_width = 4


class Uint3ActPerTensorFixedPointDivQAT(Uint8ActPerTensorFixedPointDivQAT):
    """3-bit activations in 0…7, learned power-of-two scale."""

    bit_width = 3


class Uint2ActPerTensorFixedPointDivQAT(Uint8ActPerTensorFixedPointDivQAT):
    """2-bit activations in 0…3, learned power-of-two scale."""

    bit_width = 2


class Int8ActPerTensorFloatDivQAT(LearnedActScale, Int8ActPerTensorFloat):  # type: ignore[misc]
    """8-bit activations in -128…127, learned float scale."""


class Int4ActPerTensorFloatDivQAT(Int8ActPerTensorFloatDivQAT):
    """4-bit activations in -8…7, learned float scale."""

    bit_width = 4


class Int3ActPerTensorFloatDivQAT(Int8ActPerTensorFloatDivQAT):
    """3-bit activations in -4…3, learned float scale."""

    bit_width = 3


class Int2ActPerTensorFloatDivQAT(Int8ActPerTensorFloatDivQAT):
    """2-bit activations in -2…1, learned float scale."""

    bit_width = 2


class Int8ActPerTensorFixedPointDivQAT(LearnedActScale, Int8ActPerTensorFixedPoint):  # type: ignore[misc]
    """8-bit activations in -128…127, learned power-of-two scale."""


class Int4ActPerTensorFixedPointDivQAT(Int8ActPerTensorFixedPointDivQAT):
    """4-bit activations in -8…7, learned power-of-two scale."""

    bit_width = 4


class Int3ActPerTensorFixedPointDivQAT(Int8ActPerTensorFixedPointDivQAT):
    """3-bit activations in -4…3, learned power-of-two scale."""

    bit_width = 3


class Int2ActPerTensorFixedPointDivQAT(Int8ActPerTensorFixedPointDivQAT):
    """2-bit activations in -2…1, learned power-of-two scale."""

    bit_width = 2


class Uint8ImageDivQAT(LearnedActScale, Uint8ActPerTensorFloat):  # type: ignore[misc]
    """The network's input: a uint8 image given as pixel/255 in [0, 1].

    The scale is the constant 1/255, so the codes are exactly the pixels and the hardware takes
    raw bytes. The first training batch is looked at: an ``InputRangeWarning`` says where more than
    1 % of it lies outside [0, 1], as normalised images do.
    """

    int_quant = ImageIntQuant
    scaling_impl_type = ScalingImplType.CONST
    scaling_init = 1.0
