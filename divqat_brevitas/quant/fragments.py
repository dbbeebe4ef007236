"""Learned scales that may be saved and loaded before they have a value.

A scale takes its value from the first data it sees. Brevitas leaves it out of the state dict
until then, but refuses to load such a dict strictly. Here an unset scale loads as unset; a
scale that has a value still insists on its key.
"""

import math
from typing import Any

import torch
from brevitas.core.restrict_val import LogFloatRestrictValue, PowerOfTwoRestrictValue
from brevitas.core.scaling import (
    ParameterFromRuntimeStatsScaling,
    ParameterFromStatsFromParameterScaling,
)
from brevitas.inject import ExtendedInjector, value
from brevitas.inject.enum import QuantType, ScalingImplType
from brevitas.proxy import ActQuantProxyFromInjector
from brevitas.quant.solver.act import SolveActScalingImplFromEnum
from brevitas.quant.solver.parameter import SolveParameterScalingImplFromEnum
from torch import Tensor

from divqat_brevitas.quant.learned_scale import LearnedScaleIntQuant
from divqat_brevitas.quant.proxy import DivQATWeightQuantProxy
from divqat_brevitas.quant.validate import check_settings


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


class LearnedScale(ExtendedInjector):  # type: ignore[misc]
    """Integer grid whose scale gets LSQ's gradient."""

    @value  # type: ignore[untyped-decorator]
    def int_quant(quant_type: QuantType) -> Any:  # noqa: N805  (Brevitas' injection style)
        """LSQ for integers, nothing for other kinds (as Brevitas' solver does)."""
        return LearnedScaleIntQuant if quant_type == QuantType.INT else None


class LearnedWeightScale(LearnedScale):
    """A weight scale that is a parameter, initialised from the weights' maximum.

    Stock weight quantizers recompute the scale from the weights at every step, so no loss
    ever reaches it except through the largest weight.
    """

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS

    @value  # type: ignore[untyped-decorator]
    def scaling_impl(scaling_impl_type: ScalingImplType | None = None) -> Any:  # noqa: N805
        """Brevitas' choice, except that a learned scale may be saved before it is set."""
        chosen = _stock(SolveParameterScalingImplFromEnum, scaling_impl_type)
        return WeightScale if issubclass(WeightScale, chosen or ()) else chosen

    @value  # type: ignore[untyped-decorator]
    def proxy_class(__self__: Any) -> Any:  # noqa: N805
        """Our proxy, once every setting is known to be read by something."""
        check_settings(__self__)
        return DivQATWeightQuantProxy


class LearnedActScale(LearnedScale):
    """An activation scale that is a parameter, initialised from run-time statistics."""

    @value  # type: ignore[untyped-decorator]
    def scaling_impl(scaling_impl_type: ScalingImplType | None = None) -> Any:  # noqa: N805
        """Brevitas' choice, except that a learned scale may be saved before it is set."""
        chosen = _stock(SolveActScalingImplFromEnum, scaling_impl_type)
        return ActScale if issubclass(ActScale, chosen or ()) else chosen

    @value  # type: ignore[untyped-decorator]
    def proxy_class(__self__: Any) -> Any:  # noqa: N805
        """Brevitas' proxy, once every setting is known to be read by something."""
        check_settings(__self__)
        return ActQuantProxyFromInjector


def _stock(solver: Any, scaling_impl_type: ScalingImplType | None) -> Any:
    """What Brevitas' own solver answers for this kind of scale."""
    function = solver.__dependencies__["scaling_impl"][1]
    return function(scaling_impl_type=scaling_impl_type)
