"""Weight quantizers: signed, narrow range, zero-point 0, with learned scales.

Named by Brevitas' grammar with the suffix DivQAT. At initialisation each is bit-identical to
its stock equivalent (``Int8WeightPer{Tensor,Channel}{Float,FixedPoint}`` at that bit width).
Any of them is used as ``QuantConv2d(..., weight_quant=Int4WeightPerChannelFloatDivQAT)`` and
takes Brevitas' prefixed overrides (``weight_bit_width=3``).
"""

from brevitas.quant.fixed_point import (
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFixedPoint,
)
from brevitas.quant.scaled_int import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat

from divqat_brevitas.quant.fragments import LearnedWeightScale


class Int8WeightPerTensorFloatDivQAT(LearnedWeightScale, Int8WeightPerTensorFloat):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale for the tensor, learned float scale."""


class Int4WeightPerTensorFloatDivQAT(Int8WeightPerTensorFloatDivQAT):
    """4-bit weights in -7…7, one scale for the tensor, learned float scale."""

    bit_width = 4


class Int3WeightPerTensorFloatDivQAT(Int8WeightPerTensorFloatDivQAT):
    """3-bit weights in -3…3, one scale for the tensor, learned float scale."""

    bit_width = 3


class Int2WeightPerTensorFloatDivQAT(Int8WeightPerTensorFloatDivQAT):
    """2-bit weights in -1…1, one scale for the tensor, learned float scale."""

    bit_width = 2


class Int8WeightPerTensorFixedPointDivQAT(LearnedWeightScale, Int8WeightPerTensorFixedPoint):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale for the tensor, learned power-of-two scale."""


class Int4WeightPerTensorFixedPointDivQAT(Int8WeightPerTensorFixedPointDivQAT):
    """4-bit weights in -7…7, one scale for the tensor, learned power-of-two scale."""

    bit_width = 4


class Int3WeightPerTensorFixedPointDivQAT(Int8WeightPerTensorFixedPointDivQAT):
    """3-bit weights in -3…3, one scale for the tensor, learned power-of-two scale."""

    bit_width = 3


class Int2WeightPerTensorFixedPointDivQAT(Int8WeightPerTensorFixedPointDivQAT):
    """2-bit weights in -1…1, one scale for the tensor, learned power-of-two scale."""

    bit_width = 2


class Int8WeightPerChannelFloatDivQAT(LearnedWeightScale, Int8WeightPerChannelFloat):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale an output channel, learned float scale."""


class Int4WeightPerChannelFloatDivQAT(Int8WeightPerChannelFloatDivQAT):
    """4-bit weights in -7…7, one scale an output channel, learned float scale."""

    bit_width = 4


class Int3WeightPerChannelFloatDivQAT(Int8WeightPerChannelFloatDivQAT):
    """3-bit weights in -3…3, one scale an output channel, learned float scale."""

    bit_width = 3


class Int2WeightPerChannelFloatDivQAT(Int8WeightPerChannelFloatDivQAT):
    """2-bit weights in -1…1, one scale an output channel, learned float scale."""

    bit_width = 2


class Int8WeightPerChannelFixedPointDivQAT(LearnedWeightScale, Int8WeightPerChannelFixedPoint):  # type: ignore[misc]
    """8-bit weights in -127…127, one scale an output channel, learned power-of-two scale."""


class Int4WeightPerChannelFixedPointDivQAT(Int8WeightPerChannelFixedPointDivQAT):
    """4-bit weights in -7…7, one scale an output channel, learned power-of-two scale."""

    bit_width = 4


class Int3WeightPerChannelFixedPointDivQAT(Int8WeightPerChannelFixedPointDivQAT):
    """3-bit weights in -3…3, one scale an output channel, learned power-of-two scale."""

    bit_width = 3


class Int2WeightPerChannelFixedPointDivQAT(Int8WeightPerChannelFixedPointDivQAT):
    """2-bit weights in -1…1, one scale an output channel, learned power-of-two scale."""

    bit_width = 2
