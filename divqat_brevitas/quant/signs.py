"""One-bit codes: the signs of weights and of activations, and the gradient that passes them.

A sign has no useful gradient. That of the output is passed on instead, for activations within
[-1, 1]: beyond, a sign cannot be turned by a small step (Hubara et al., "Binarized Neural
Networks", NeurIPS 2016, sec. 1.3). The float weights behind the signs are kept in [-1, 1] as the
paper has it: beyond, a weight would only become slower to turn.
"""

from typing import Any

import torch
from brevitas.core.quant import ClampedBinaryQuant
from brevitas.inject import value
from brevitas.inject.enum import QuantType, ScalingImplType, StatsOp
from brevitas.proxy import WeightQuantProxyFromInjector
from torch import Tensor, nn

from divqat_brevitas.quant.fragments import LearnedActScale, LearnedWeightScale
from divqat_brevitas.quant.training_step import LearnedIntQuant


class _Sign(torch.autograd.Function):
    """``scale`` where x >= 0, ``-scale`` elsewhere; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, clipped: bool) -> Tensor:
        ctx.clipped, ctx.shape = clipped, scale.shape
        ctx.save_for_backward(x if clipped or scale.requires_grad else None)
        return torch.where(x >= 0, scale, -scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (gradient,), (x,) = gradients, ctx.saved_tensors
        of_scale = None
        if ctx.needs_input_grad[1]:
            of_scale = torch.where(x >= 0, gradient, -gradient).sum_to_size(ctx.shape)
        if ctx.clipped:
            gradient = torch.ops.aten.hardtanh_backward(gradient, x, -1.0, 1.0)
        return gradient, of_scale, None


class SignActQuant(ClampedBinaryQuant):  # type: ignore[misc]
    """Brevitas' ``ClampedBinaryQuant`` in fewer passes; the gradient is cut at 1, not at the scale.

    Example:
        >>> from brevitas.core.scaling import ConstScaling
        >>> x = torch.tensor([-2.0, -0.5, 0.0, 3.0], requires_grad=True)
        >>> codes = SignActQuant(ConstScaling(1.0))(x)[0]
        >>> codes.sum().backward()
        >>> codes.tolist(), x.grad.tolist()
        ([-1.0, -1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0])
    """

    clips_gradient = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values, scale, zero-point and bit width; see ``brevitas.core.quant``."""
        scale = self.scaling_impl(x)
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            y = torch.where(x >= 0, scale, -scale)
        else:
            y = _Sign.apply(x, scale, self.clips_gradient)  # type: ignore[no-untyped-call]
        return self.delay_wrapper(x, y), scale, self.zero_point(), self.bit_width()


class SignWeightQuant(SignActQuant):
    """Signs of weights; while it trains, it keeps the float weights in [-1, 1].

    Every weight gets its gradient, so that one at the bound can turn.

    Example:
        >>> from brevitas.core.scaling import ConstScaling
        >>> weight = nn.Parameter(torch.tensor([-2.0, 0.5]))
        >>> SignWeightQuant(ConstScaling(0.1))(weight)[0].tolist(), weight.tolist()
        ([-0.10000000149011612, 0.10000000149011612], [-1.0, 0.5])
    """

    clips_gradient = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As ``SignActQuant``."""
        if self.training and x.requires_grad:
            x.data.clamp_(-1, 1)  # not seen by autograd: no graph holds the values
        return super().forward(x)


def _quant_type(bit_width: Any) -> QuantType:
    return QuantType.BINARY if bit_width == 1 else QuantType.INT


def _either(signs: Any, integers: Any) -> Any:
    """A quantizer's part, by what it gives."""

    def chosen(quant_type: QuantType) -> Any:
        return signs if quant_type == QuantType.BINARY else integers

    return value(chosen)


class SignedBinaryWeight(LearnedWeightScale):
    """Signs of weights, scaled by the mean of their sizes; at other bit widths integers.

    The mean is the scale that is nearest to the float weights (Rastegari et al., "XNOR-Net", ECCV
    2016, sec. 3.1). It follows them while they learn.
    """

    bit_width = 1
    quant_type = value(_quant_type)

    tensor_quant = _either(SignWeightQuant, LearnedIntQuant)
    scaling_impl_type = _either(ScalingImplType.STATS, ScalingImplType.PARAMETER_FROM_STATS)
    scaling_stats_op = _either(StatsOp.AVE, StatsOp.MAX)


class SignedBinaryAct(LearnedActScale):
    """Signs of activations, of scale 1; at other bit widths integers of a learned scale."""

    bit_width = 1
    min_val = -1.0
    max_val = 1.0
    quant_type = value(_quant_type)

    tensor_quant = _either(SignActQuant, LearnedIntQuant)
    scaling_impl_type = _either(ScalingImplType.CONST, ScalingImplType.PARAMETER_FROM_STATS)


def sign_weights(model: nn.Module) -> list[nn.Parameter]:
    """The float weights of which a network takes the signs.

    Example:
        >>> from brevitas.nn import QuantLinear
        >>> from divqat_brevitas.quant import SignedBinaryWeightPerTensorFloatDivQAT
        >>> layer = QuantLinear(3, 2, weight_quant=SignedBinaryWeightPerTensorFloatDivQAT)
        >>> [parameter.shape for parameter in sign_weights(layer)]
        [torch.Size([2, 3])]
    """
    return [
        parameter
        for module in model.modules()
        if isinstance(module, WeightQuantProxyFromInjector)
        and isinstance(module.tensor_quant, SignWeightQuant)
        for parameter in module.tracked_parameter_list
    ]
