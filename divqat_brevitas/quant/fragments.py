"""What the quantizer classes have in common: injectors of learned scales for weights and acts."""

from typing import Any

from brevitas.core.quant import RescalingIntQuant
from brevitas.inject import ExtendedInjector, value
from brevitas.inject.enum import QuantType, ScalingImplType
from brevitas.quant.solver.act import SolveActScalingImplFromEnum, SolveActTensorQuantFromEnum
from brevitas.quant.solver.parameter import SolveParameterScalingImplFromEnum
from brevitas.quant.solver.weight import SolveWeightTensorQuantFromEnum

from divqat_brevitas.quant.learned_scale import ActScale, LearnedScaleIntQuant, WeightScale
from divqat_brevitas.quant.proxy import DivQATActQuantProxy, DivQATWeightQuantProxy
from divqat_brevitas.quant.training_step import LearnedIntQuant
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
        chosen = _stock(
            SolveParameterScalingImplFromEnum, "scaling_impl", scaling_impl_type=scaling_impl_type
        )
        return WeightScale if issubclass(WeightScale, chosen or ()) else chosen

    @value  # type: ignore[untyped-decorator]
    def tensor_quant(quant_type: QuantType) -> Any:  # noqa: N805
        """Brevitas' choice, except that a training step of integers is one node."""
        chosen = _stock(SolveWeightTensorQuantFromEnum, "tensor_quant", quant_type=quant_type)
        return LearnedIntQuant if chosen is RescalingIntQuant else chosen

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
        chosen = _stock(
            SolveActScalingImplFromEnum, "scaling_impl", scaling_impl_type=scaling_impl_type
        )
        return ActScale if issubclass(ActScale, chosen or ()) else chosen

    @value  # type: ignore[untyped-decorator]
    def tensor_quant(quant_type: QuantType) -> Any:  # noqa: N805
        """Brevitas' choice, except that a training step of integers is one node."""
        chosen = _stock(SolveActTensorQuantFromEnum, "tensor_quant", quant_type=quant_type)
        return LearnedIntQuant if chosen is RescalingIntQuant else chosen

    @value  # type: ignore[untyped-decorator]
    def proxy_class(__self__: Any) -> Any:  # noqa: N805
        """Our proxy, once every setting is known to be read by something."""
        check_settings(__self__)
        return DivQATActQuantProxy


def _stock(solver: Any, name: str, **settings: Any) -> Any:
    """What Brevitas' own solver answers for a component by these settings."""
    return solver.__dependencies__[name][1](**settings)
