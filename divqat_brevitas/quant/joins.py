"""Quantizers of the branches of a sum, and the scale that they share with what enters the block.

Branches that are added as integers need one scale. Where a branch is an identity shortcut, it
carries the codes of an activation already: with that activation's scale, divided by a power of
two, a quantizer with more bits passes these codes unchanged, and the hardware needs no thresholds
there.
"""

from collections.abc import Mapping
from typing import Any

import torch
from brevitas import nn as qnn
from torch import Tensor, fx, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.quant.swappable import ACTIVATIONS, SIGNED, Join

WIDTHS = range(2, 9)
"""Bit widths that a quantizer of branches can have."""
# Layers whose outputs are among their inputs: codes stay codes of one scale.
_PASSING = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
)


class WiderIntScaling(nn.Module):
    """Codes of a scale that is another quantizer's, divided by a power of two.

    Args:
        narrow: ``int_scaling_impl`` of the other quantizer.
        bit_width: of the other quantizer.
        factor: what its scale is divided by.
    """

    def __init__(self, narrow: nn.Module, bit_width: Tensor, factor: int) -> None:
        super().__init__()
        self.narrow = narrow
        self.factor = factor
        self.register_buffer("bit_width", bit_width.detach().clone(), persistent=False)

    def forward(self, bit_width: Tensor, signed: Any = None) -> Tensor:
        """The other quantizer's largest code, times the factor."""
        levels: Tensor = self.narrow(self.bit_width) * self.factor
        return levels


def shortcut_sources(model: nn.Module) -> dict[str, str]:
    """The activation whose codes an identity shortcut carries, by the name of its ``Join``.

    Args:
        model: a float network.

    Returns:
        names of modules. A ``Join`` is missing where all of its branches compute something, where
        several activations reach it, or where ``forward`` depends on its data.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception:  # whatever a user's forward raises on a proxy: nothing is shared
        return {}
    modules = dict(model.named_modules())
    found: dict[str, set[str]] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], Join):
            source = _source(node.args[0], modules)
            if source is not None:
                found.setdefault(node.target, set()).add(source)
    return {name: one for name, (one, *more) in found.items() if not more}


class _Tracer(fx.Tracer):
    """Sees calls of a ``Join``, which is otherwise traced through."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Join) or super().is_leaf_module(module, name)


def _source(node: Any, modules: Mapping[str, nn.Module]) -> str | None:
    while isinstance(node, fx.Node) and node.op == "call_module":
        module = modules[str(node.target)]
        if type(module) in ACTIVATIONS and type(module) not in SIGNED:
            return str(node.target)
        if type(module) not in _PASSING:
            return None
        node = node.args[0]
    return None


def join_quantizer(act: Any, bit_width: int | None, source: nn.Module | None) -> Any:
    """The activation quantizer of a ``Join``.

    Args:
        act: the unsigned quantizer class of the network's activations.
        bit_width: of the branches; None: that of ``act``.
        source: the quantized activation whose codes an identity shortcut carries, where there is
            one. Its scale is shared if ``bit_width`` holds all of its codes.

    Returns:
        a signed quantizer class.

    Raises:
        InputError: no bit width of 2 to 8.

    Example:
        >>> from divqat_brevitas.quant import Uint4ActPerTensorFloatDivQAT
        >>> join_quantizer(Uint4ActPerTensorFloatDivQAT, 6, None).bit_width
        6
    """
    quantizer = act.let(signed=True)
    if bit_width is None:
        return quantizer
    if bit_width not in WIDTHS:
        raise InputError(f"join_bit_width={bit_width!r}: take 2 to 8, 5 to 8 for 4-bit codes.")
    quantizer = quantizer.let(bit_width=bit_width)
    if not isinstance(source, qnn.QuantReLU):
        return quantizer
    tensor_quant: Any = source.act_quant.fused_activation_quant_proxy.tensor_quant
    scaling = getattr(tensor_quant, "scaling_impl", None)
    bits = tensor_quant.msb_clamp_bit_width_impl()
    spare = bit_width - 1 - int(bits)
    if scaling is None or spare < 0:
        return quantizer
    with torch.no_grad():
        wider = WiderIntScaling(tensor_quant.int_scaling_impl, bits, 2**spare)
    return quantizer.let(scaling_impl=scaling, int_scaling_impl=wider)
