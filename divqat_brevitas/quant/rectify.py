"""Leave the ReLU before an unsigned quantizer to the quantizer, while a network trains.

``QuantReLU`` computes a ReLU and then a quantizer whose smallest code is 0: two passes over the
activations in each direction, and two tensors kept for the backward pass, where one does. What is
computed is the same, bit for bit, and so is the gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from brevitas.proxy.runtime_quant import FusedActivationQuantProxy
from torch import nn

from divqat_brevitas.quant.learned_scale import LearnedScaleIntQuant
from divqat_brevitas.quant.unset_scale import ActScale


@contextmanager
def rectifying(model: nn.Module) -> Iterator[None]:
    """Within the block, ReLUs in front of our unsigned quantizers run inside these.

    Left alone are quantizers that still take their scale from what they see: statistics are of
    rectified values.

    Args:
        model: any network; as before afterwards.

    Example:
        >>> from brevitas.nn import QuantReLU
        >>> from divqat_brevitas.quant import Uint4ActPerTensorFloatDivQAT
        >>> relu = QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)
        >>> with rectifying(relu):
        ...     out = relu(torch.tensor([-1.0, 2.0]))
        >>> out.detach()
        tensor([0., 2.])
    """
    joined: list[Any] = [m for m in model.modules() if _can_join(m)]
    relus = [module.activation_impl for module in joined]
    for module in joined:
        module.activation_impl = nn.Identity()
        module.tensor_quant.int_quant.rectifying = True
    try:
        yield
    finally:
        for module, relu in zip(joined, relus, strict=True):
            module.activation_impl = relu
            module.tensor_quant.int_quant.rectifying = False


def _can_join(module: Any) -> bool:
    if not isinstance(module, FusedActivationQuantProxy) or isinstance(
        module, torch.jit.ScriptModule
    ):
        return False
    tensor_quant = module.tensor_quant
    int_quant = getattr(tensor_quant, "int_quant", None)
    scaling = getattr(tensor_quant, "scaling_impl", None)
    return (
        type(module.activation_impl) is nn.ReLU
        and type(int_quant) is LearnedScaleIntQuant
        and not int_quant.signed
        and type(scaling) is ActScale
        and scaling.counter >= scaling.collect_stats_steps
        and not tensor_quant.observer_only
    )
