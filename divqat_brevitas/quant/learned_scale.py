"""The integer quantizer whose scale learns at the pace of the weights (LSQ).

Method: Esser et al., "Learned Step Size Quantization", ICLR 2020. Straight-through
rounding and a clamp give the gradient of the step size (sec. 2.1); it is then scaled by
``1/sqrt(N·Q)`` (sec. 2.2) so that its relative updates match those of the N values that
share it, at any bit width. The forward pass is Brevitas' own, bit for bit.

A scale takes its value from the first data it sees. Brevitas leaves it out of the state dict
until then, but refuses to load such a dict strictly. Here an unset scale loads as unset; a
scale that has a value still insists on its key.
"""

import math
from typing import Any

import torch
from brevitas.core.function_wrapper import Identity, RoundSte, TensorClamp
from brevitas.core.quant import IntQuant
from brevitas.core.quant.delay import _NoDelay
from brevitas.core.restrict_val import LogFloatRestrictValue, PowerOfTwoRestrictValue
from brevitas.core.scaling import (
    ParameterFromRuntimeStatsScaling,
    ParameterFromStatsFromParameterScaling,
)
from brevitas.inject.enum import RestrictValueType
from torch import Tensor

from divqat_brevitas.quant.fused import LARGEST_BOUND, fused_int_quant, takes
from divqat_brevitas.quant.input_fit import measure, warn_of_cut


class _ScaleGradient(torch.autograd.Function):
    """Identity that multiplies the gradient of a scale, and may make it one of the logarithm."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, factor: Tensor, log_domain: bool) -> Tensor:
        ctx.save_for_backward(scale, factor)
        ctx.log_domain = log_domain
        return scale.view_as(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        scale, factor = ctx.saved_tensors
        step = gradients[0] * factor
        if not ctx.log_domain:
            return step, None, None
        size = step.abs()
        # Not log(size / scale): that quotient overflows at the smallest scales.
        beyond = step.sign() * (1 + size.log() - scale.log())
        relative = torch.where(size <= scale, step / scale, beyond)
        return relative / (scale * math.log(2) ** 2), None, None


def scale_gradient(scale: Tensor, factor: Tensor, log_domain: bool) -> Tensor:
    """``scale`` unchanged; its gradient makes the parameter behind it follow LSQ.

    LSQ's learned parameter is the scale s itself, which takes the step g·dL/ds with
    g = 1/sqrt(N·Q) at a learning rate of 1. Brevitas learns v instead:

    - s = v/Q (float scales). The chain rule would shrink the step of s by (1/Q)², which the
      factor Q² makes good.
    - s = 2**v times a constant, v rounded up for powers of two. The step that s takes is the step
      log2(1 + r) of v, with r = g·(dL/ds)/s. It is r/ln 2 as long as s changes by less than
      itself. Beyond that the tangent has nothing to do with the logarithm: a scale of 1e-11 has
      an r of 1e11, and v leaves the range of floats in one step. The gradient of v is therefore
      r/ln 2 for abs(r) ≤ 1, and sign(r)·(1 + ln abs(r))/ln 2 beyond: continuous with its
      derivative, and as many doublings as lie between the scale and its target.

    Example:
        >>> v = torch.tensor(2.0, requires_grad=True)
        >>> scale_gradient(v, torch.tensor(0.5), log_domain=False).backward()
        >>> v.grad
        tensor(0.5000)
        >>> v = torch.tensor(-36.0, requires_grad=True)  # the gradient of v was 1e10 / ln 2
        >>> scale_gradient(2**v, torch.tensor(0.15), log_domain=True).backward()
        >>> round(v.grad.item(), 2)
        34.71
    """
    result: Tensor = _ScaleGradient.apply(scale, factor, log_domain)  # type: ignore[no-untyped-call]
    return result


def step_size_factor(count: int, bound: float, log_domain: bool) -> float:
    """The factor on the scale's gradient: LSQ's g, times Q² where the parameter is Q·s.

    Args:
        count: values that share the scale.
        bound: Q, of the codes' magnitude.
        log_domain: whether the parameter is the scale's logarithm.
    """
    factor = 1 / math.sqrt(max(1, count) * bound)
    return factor if log_domain else factor * bound**2


class WeightScale(ParameterFromStatsFromParameterScaling):  # type: ignore[misc]
    """A weight scale, initialised from the weights at the first forward pass.

    A row of zeros has no range, and Brevitas starts its scale at a floor of 1e-10. A logarithm
    takes thousands of steps from there to a useful scale, in which the row learns nothing. Where
    the parameter is a logarithm, such a row starts at the largest scale of the other rows, or
    without any at PyTorch's own range of new weights, 1/sqrt(values in a row). The quantized row
    is 0 at any scale.
    """

    def forward(self, x: Tensor, threshold: Tensor | None = None) -> Tensor:
        """The scale(s); the first call sets them from the weights ``x``."""
        unset = not self.init_done
        scale: Tensor = super().forward(x, threshold)
        restrict = self.stats_scaling_impl.restrict_clamp_scaling.restrict_value_impl
        if not unset or not isinstance(restrict, PowerOfTwoRestrictValue | LogFloatRestrictValue):
            return scale
        with torch.no_grad():
            dead = (self.parameter_list_stats(x) == 0).view_as(self.value)
            if not dead.any():
                return scale
            ordinary = self.value[~dead].max() if not dead.all() else -math.log2(x[0].numel()) / 2
            self.value[dead] = ordinary
        result: Tensor = super().forward(x, threshold)
        return result

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, *lists: Any
    ) -> None:
        key, unset = prefix + "value", not self.init_done
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *lists)
        if unset and key in missing:
            missing.remove(key)


class ActScale(ParameterFromRuntimeStatsScaling):  # type: ignore[misc]
    """An activation scale, initialised from statistics of the first training batches."""

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, *lists: Any
    ) -> None:
        key, unset = prefix + "value", self.counter == 0
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *lists)
        if unset and key in missing:
            missing.remove(key)


class LearnedScaleIntQuant(IntQuant):  # type: ignore[misc]
    """Brevitas' ``IntQuant`` with LSQ's gradient for the scale.

    The output and the gradient of ``x`` are those of ``IntQuant``; only the gradient that
    reaches the scale is rescaled. In training mode both come from one fused function, where
    the components are the usual ones (round to nearest, plain clamp, zero-point 0, float32);
    evaluation and export run Brevitas' own.

    Args:
        restrict_scaling_type: how the scale is parametrized (float or power of two).
        **int_quant: the arguments of Brevitas' ``IntQuant``.

    Example:
        >>> from brevitas.core.function_wrapper import Identity
        >>> quant = LearnedScaleIntQuant(
        ...     narrow_range=True, signed=True, input_view_impl=Identity(),
        ...     restrict_scaling_type=RestrictValueType.FP)
        >>> scale, zero, bits = torch.tensor(0.1), torch.tensor(0.0), torch.tensor(4.0)
        >>> quant(scale, zero, bits, torch.tensor([0.04, -0.26, 9.0]))
        tensor([ 0.0000, -0.3000,  0.7000])
    """

    def __init__(  # the injector matches these names, hence no **kwargs
        self,
        narrow_range: bool,
        signed: bool,
        input_view_impl: torch.nn.Module,
        float_to_int_impl: torch.nn.Module | None = None,
        tensor_clamp_impl: torch.nn.Module | None = None,
        restrict_scaling_type: RestrictValueType = RestrictValueType.FP,
        quant_delay_steps: int = 0,
    ):
        super().__init__(
            narrow_range,
            signed,
            input_view_impl,
            float_to_int_impl or RoundSte(),
            tensor_clamp_impl or TensorClamp(),
            quant_delay_steps,
        )
        self.log_domain = restrict_scaling_type in (
            RestrictValueType.POWER_OF_TWO,
            RestrictValueType.LOG_FP,
        )

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """Quantize and dequantize ``x``; see ``brevitas.core.quant.IntQuant``."""
        if scale.requires_grad:
            with torch.no_grad():
                bound = torch.maximum(self.max_int(bit_width), -self.min_int(bit_width))
                count = x.numel() // scale.numel()
                factor = step_size_factor(count, float(bound), self.log_domain)
            scale = scale_gradient(scale, scale.new_tensor(factor), self.log_domain)
        if self.training and self.fuses(x, scale) and not zero_point.requires_grad:
            low, high = int(self.min_int(bit_width)), int(self.max_int(bit_width))
            if max(-low, high) < LARGEST_BOUND and not bool(zero_point.any()):
                return fused_int_quant(x, scale, low, high)
        result: Tensor = super().forward(scale, zero_point, bit_width, x)
        return result

    def fuses(self, x: Tensor, scale: Tensor) -> bool:
        """Whether the fused pass computes what Brevitas' components would, and may run here.

        Exact types: a subclass may round or clamp otherwise. Exporters and compilers are shown
        Brevitas' own operators.
        """
        return (
            type(self.float_to_int_impl) is RoundSte
            and type(self.tensor_clamp_impl) is TensorClamp
            and type(self.input_view_impl) is Identity
            and type(self.delay_wrapper.delay_impl) is _NoDelay
            and takes(x, scale)
            and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
            and not torch.compiler.is_compiling()
        )

    def look(self, scale: Tensor, bit_width: Tensor, x: Tensor) -> None:
        """Called with what it is to quantize in training; subclasses may warn."""


class ImageIntQuant(LearnedScaleIntQuant):
    """The grid of an image quantizer, whose range is fixed: it looks at what it gets.

    The first training batch is compared with the range, once; an ``InputRangeWarning`` says where
    more than 1 % of its values are cut, which no training mends.
    """

    seen = False

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """As ``LearnedScaleIntQuant``."""
        if self.training and not torch.compiler.is_compiling():
            self.look(scale, bit_width, x)
        result: Tensor = super().forward(scale, zero_point, bit_width, x)
        return result

    def look(self, scale: Tensor, bit_width: Tensor, x: Tensor) -> None:
        """Warn of the first batch, once."""
        if self.seen:
            return
        self.seen = True
        with torch.no_grad():
            codes = (self.min_int(bit_width), self.max_int(bit_width))
            warn_of_cut(measure(x, scale, codes, int(bit_width), fixed=True), stacklevel=2)
