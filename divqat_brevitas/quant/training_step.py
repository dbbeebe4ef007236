"""A quantizer's step of training as one node of the autograd graph, and the ReLU before it in it.

Brevitas computes a scale by a chain of modules, each a node on one number; where the scale still
comes from statistics, it sorts the whole activation for a percentile. Both cost more than the
quantization. Here one function has the values of that chain and its derivative in closed form, the
percentile is looked for only in rows that can hold it, and what a ReLU would cut off counts as 0.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.function_wrapper import Identity, ScalarSignedClampMinSte
from brevitas.core.quant import RescalingIntQuant
from brevitas.core.restrict_val import FloatRestrictValue
from brevitas.core.scaling import ConstScaling
from brevitas.core.stats import AbsPercentile
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.proxy.runtime_quant import FusedActivationQuantProxy
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from divqat_brevitas.quant.fused import LARGEST_BOUND, Grid, fused_int_quant, gapless, remember
from divqat_brevitas.quant.learned_scale import (
    ActScale,
    ImageIntQuant,
    LearnedScaleIntQuant,
    WeightScale,
    scale_gradient,
    step_size_factor,
)

_ROW = 1024  # values of a row in the search for a percentile
Quantized = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class _Constants:
    """What follows from the modules of a quantizer with a constant bit width.

    Attributes:
        origin: those modules and the bit width, and ``version``, its own: while these stay.
        bit_width: float32, ().
        zero_point: 0, float32, ().
        threshold: the range is divided by it, float32, ().
        low: the smallest code.
        high: the largest code.
        least: the smallest range, where the scale is a learned range divided by the threshold;
            None for other scales.
    """

    origin: tuple[Any, ...]
    version: int
    bit_width: Tensor
    zero_point: Tensor
    threshold: Tensor
    low: int
    high: int
    least: float | None

    @property
    def bound(self) -> int:
        """Of the codes' magnitude."""
        return max(-self.low, self.high)


@dataclass(frozen=True)
class _Chain:
    """A scale and how it follows from the range.

    Attributes:
        scale: the value.
        threshold: what the range was divided by.
        factor: LSQ's, on what reaches the scale from the quantized values.
        peak: place in the memory of ``x`` and sign of the value that the range is; None: it is a
            parameter.
    """

    scale: Tensor
    threshold: Tensor
    factor: float
    peak: tuple[int, float] | None


class _Step(torch.autograd.Function):
    """Values and scale of the quantized ``x``, whose scale is ``abs(value) / threshold``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Tensor, chain: _Chain, grid: Grid
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, value)
        ctx.chain, ctx.grid = chain, grid
        ctx.set_materialize_grads(False)
        return grid.quantize(x, chain.scale), chain.scale.clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor | None, of_scale: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, value = ctx.saved_tensors
        chain: _Chain = ctx.chain
        of_x, of_value = None, None
        pull = torch.zeros_like(chain.scale) if of_scale is None else of_scale
        if gradient is not None:
            wanted = ctx.needs_input_grad[1] or chain.peak is not None
            of_x, sums = ctx.grid.gradients(x, chain.scale, gradient, wanted)
            if wanted:
                pull = sums * chain.factor if of_scale is None else pull + sums * chain.factor
        pull = pull / chain.threshold
        if chain.peak is None:
            of_value = torch.where(value < 0, -pull, pull)
        else:
            of_value = torch.zeros_like(value)
            of_x = torch.zeros_like(x) if of_x is None else of_x
            at, sign = chain.peak
            of_x.as_strided((x.numel(),), (1,))[at] += sign * pull
        return of_x, of_value, None, None


class LearnedIntQuant(RescalingIntQuant):  # type: ignore[misc]
    """Brevitas' ``RescalingIntQuant`` whose training step is one node of the autograd graph.

    The values and the gradient of ``x`` are Brevitas' own, and the gradient of the scale is LSQ's.
    With other components than this package's, in evaluation, and for exporters and compilers,
    Brevitas' code runs.
    """

    _known: _Constants | None = None

    def forward(self, x: Tensor) -> Quantized:
        """``x`` quantized, its scale, zero-point and bit width."""
        found = self.step(x)
        result: Quantized = super().forward(x) if found is None else found
        return result

    def step(self, x: Tensor, rectify: bool = False) -> Quantized | None:
        """As ``forward`` in training, with ``rectify`` of ``relu(x)``; None where it cannot."""
        known = self._constants() if self.training and not self.observer_only else None
        scaling, int_quant = self.scaling_impl, self.int_quant
        if known is None or (rectify and known.low != 0) or x.numel() == 0:
            return None
        constant = type(scaling) is ConstScaling
        if not int_quant.fuses(x, known.threshold if constant else scaling.value):
            return None
        collecting = type(scaling) is ActScale and scaling.counter < scaling.collect_stats_steps
        if type(scaling) is WeightScale and (not scaling.init_done or scaling.local_loss_mode):
            return None
        if known.least is None:
            return None if collecting else self._composed(x, known, rectify)
        x, peak, seen = gapless(x), None, x
        if collecting:
            found = _peak(scaling, x, rectify)
            if found is None:
                return None
            peak, seen = found
        with torch.no_grad():
            if collecting or getattr(scaling, "counter", None) == getattr(
                scaling, "collect_stats_steps", math.nan
            ):  # Brevitas counts and ends the collection
                scale = scaling(seen, known.threshold)
            else:
                scale = scaling.value.abs().clamp_(min=known.least).div_(known.threshold)
        factor = step_size_factor(x.numel() // scale.numel(), known.bound, log_domain=False)
        grid = Grid(known.low, known.high, rectify)
        chain = _Chain(scale, known.threshold, factor, peak)
        y, learned = _Step.apply(x, scaling.value, chain, grid)  # type: ignore[no-untyped-call]
        return remember(y, x, scale, grid), learned, known.zero_point, known.bit_width

    def _composed(self, x: Tensor, known: _Constants, rectify: bool) -> Quantized:
        """With the scale's own nodes: constants, and learned logarithms."""
        scale = self.scaling_impl(x, known.threshold)
        self.int_quant.look(scale, known.bit_width, x)
        slow = scale
        if scale.requires_grad:
            count, log_domain = x.numel() // scale.numel(), self.int_quant.log_domain
            factor = step_size_factor(count, known.bound, log_domain)
            slow = scale_gradient(scale, scale.new_tensor(factor), log_domain)
        y = fused_int_quant(x, slow, known.low, known.high, rectify)
        return y, scale, known.zero_point, known.bit_width

    def _constants(self) -> _Constants | None:
        bits = self.msb_clamp_bit_width_impl
        if type(bits) is not BitWidthConst:
            return None
        buffer = bits.bit_width.value
        origin = (buffer, self.int_quant, self.scaling_impl, self.int_scaling_impl)
        known = self._known
        if (
            known is not None
            and known.version == buffer._version
            and all(a is b for a, b in zip(known.origin, origin, strict=True))
        ):
            return known
        if (
            type(self.zero_point_impl) is not ZeroZeroPoint
            or type(self.int_quant) not in (LearnedScaleIntQuant, ImageIntQuant)
            or type(self.scaling_impl) not in (ActScale, WeightScale, ConstScaling)
        ):
            return None
        with torch.no_grad():
            bit_width = bits()
            low, high = (
                int(f(bit_width)) for f in (self.int_quant.min_int, self.int_quant.max_int)
            )
            if max(-low, high) >= LARGEST_BOUND:
                return None
            threshold = self.int_scaling_impl(bit_width)
            zero_point = self.zero_point_impl(bit_width, bit_width, bit_width)
        least = _least_range(self.scaling_impl) if threshold.dim() == 0 else None
        self._known = _Constants(
            origin, buffer._version, bit_width, zero_point, threshold, low, high, least
        )
        return self._known


def _least_range(scaling: Any) -> float | None:
    """The smallest range where the scale is ``max(abs(value), least) / threshold``, or None."""
    if type(scaling) is ActScale:
        restricted = scaling.restrict_scaling, scaling.restrict_threshold
        last, clamp = scaling.restrict_scale_threshold, scaling.clamp_scaling.clamp_min_ste
    elif type(scaling) is WeightScale:
        stats = scaling.stats_scaling_impl
        restricted = stats.restrict_clamp_scaling, stats.restrict_clamp_threshold
        last, clamp = stats.restrict_clamp_scale_threshold, stats.restrict_clamp_scaling.clamp_ste
    else:
        return None
    floats = all(type(one.restrict_value_impl) is FloatRestrictValue for one in restricted)
    if not floats or type(last.restrict_value_impl) is not Identity:
        return None
    if type(clamp) is Identity:
        return 0.0
    return float(clamp.min_val) if type(clamp) is ScalarSignedClampMinSte else None


def _peak(scaling: ActScale, x: Tensor, rectify: bool) -> tuple[tuple[int, float], Tensor] | None:
    """The value that Brevitas' percentile of ``x`` is: its place in memory and sign; itself, (1,).

    ``rectify``: of ``relu(x)``. None where the statistic is another.
    """
    statistic = scaling.stats.stats_impl
    if (
        scaling.local_loss_mode
        or type(statistic) is not AbsPercentile
        or statistic.stats_reduce_dim is not None
        or scaling.value.dim() != 0
        or x.device.type != "cpu"
    ):
        return None
    count = x.numel()
    rank = count - math.floor(0.01 * statistic.q * count + 0.5) + 1  # from the largest
    values = x.detach().as_strided((count,), (1,))
    rows = count // _ROW
    if rank > count or statistic.q < 50:  # of a single value it is another
        return None
    if 4 * rank > rows:
        places, candidates = None, values
    else:
        table = values[: rows * _ROW].view(rows, _ROW)
        most = table.amax(1) if rectify else torch.maximum(table.amax(1), -table.amin(1))
        if most.isnan().any():
            return None
        # As many rows as the rank have a value as large, so the one of that rank is in such a row.
        places = (most >= most.topk(rank).values[-1]).nonzero().view(-1)
        candidates = torch.cat([table[places].view(-1), values[rows * _ROW :]])
    sizes = candidates if rectify else candidates.abs()
    at = int(sizes.kthvalue(len(sizes) - rank + 1).indices)
    value = candidates[at].view(1)
    if places is not None:
        inside = at < len(places) * _ROW
        at = (
            int(places[at // _ROW]) * _ROW + at % _ROW
            if inside
            else at + (rows - len(places)) * _ROW
        )
    sign = float(value.sign())
    return (at, max(0.0, sign) if rectify else sign), value.clamp(min=0) if rectify else value


class Rectified(FusedActivationQuantProxy):  # type: ignore[misc]
    """Brevitas' pair of activation function and quantizer; a ReLU is left to the quantizer."""

    def forward(self, x: Tensor) -> Quantized:
        """The quantized activation, its scale, zero-point and bit width."""
        relu, quantizer = self.activation_impl, self.tensor_quant
        if (
            type(relu) is nn.ReLU
            and type(quantizer) is LearnedIntQuant
            and not any(
                m._forward_hooks or m._forward_pre_hooks or m._backward_hooks
                for m in (relu, quantizer)
            )
        ):
            found = quantizer.step(x, rectify=True)
            if found is not None:
                return found
        result: Quantized = super().forward(x)
        return result
