"""What DivQAT quantizers add to Brevitas' own: the only dependency-injection code here.

A user class is its stock Brevitas equivalent with these fragments in front:
a learned scale with LSQ's gradient, our weight proxy (for an export that cannot lie) and
the check of settings. Everything else stays Brevitas', so its overrides keep working.
"""

from typing import Any

from brevitas.inject import ExtendedInjector, value
from brevitas.inject.enum import QuantType, ScalingImplType
from brevitas.proxy import ActQuantProxyFromInjector
from brevitas.quant.solver.act import SolveActScalingImplFromEnum
from brevitas.quant.solver.parameter import SolveParameterScalingImplFromEnum

from divqat_brevitas.quant.learned_scale import LearnedScaleIntQuant
from divqat_brevitas.quant.proxy import DivQATWeightQuantProxy
from divqat_brevitas.quant.unset_scale import ActScale, WeightScale
from divqat_brevitas.quant.validate import check_settings


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
