"""Swap a whole model's layers for DivQAT-quantized ones.

Works on float models (``nn.Conv1d``, ``nn.Conv2d``, ``nn.Linear``, ``nn.ReLU``) and on Brevitas
models. Weights, biases and batch norm are carried over, and what is frozen stays frozen; the model
passed in is never changed.
What cannot be swapped is refused by name, all of it at once.
"""

from collections.abc import Callable
from typing import Any

import torch
from brevitas.core.quant import BinaryQuant, ClampedBinaryQuant
from brevitas.nn import QuantIdentity
from brevitas.nn.quant_layer import QuantNonLinearActLayer, QuantWeightBiasInputOutputLayer
from torch import nn

from divqat_brevitas.copies import deep_copy
from divqat_brevitas.quant import (
    Int4WeightPerChannelFloatDivQAT,
    Int8ActPerTensorFloatDivQAT,
    Uint4ActPerTensorFloatDivQAT,
    Uint8ImageDivQAT,
)
from divqat_brevitas.quant.joins import join_quantizer, shortcut_sources
from divqat_brevitas.quant.scaled_input import scales_input
from divqat_brevitas.quant.swappable import (
    ACTIVATIONS,
    BREVITAS,
    WEIGHTED,
    Join,
    is_weighted,
    refuse_unswappable,
    walk,
)


def swap_quantizers(
    model: nn.Module,
    weight: Any = Int4WeightPerChannelFloatDivQAT,
    act: Any = Uint4ActPerTensorFloatDivQAT,
    *,
    input_act: Any = "auto",
    first_bit_width: int | None = None,
    last_bit_width: int | None = None,
    join_bit_width: int | None = None,
    filter_fn: Callable[[str, nn.Module], bool] | None = None,
) -> nn.Module:
    """A quantized copy of ``model``.

    Float convolutions, linear layers and ReLUs become their Brevitas counterparts, a ``Join`` of
    branches a signed quantizer, and the first weighted layer also quantizes the image. In a
    Brevitas model the quantizers are replaced where there are any; a signed activation quantizer
    stays signed, scales that quantizers share stay shared, and what quantizes the input (before
    the first weighted layer) stays as it is, since it describes the data's format, not the
    network's. Where nothing quantizes the input, ``input_act`` does.

    Args:
        model: a float or Brevitas network; deep-copied.
        weight: weight quantizer class.
        act: activation quantizer class, unsigned; used with ``signed=True`` where a Brevitas
            model's own is signed. One of signs takes the place of a ReLU and its quantizer.
        input_act: quantizer of the image where the model has none; None leaves the input float.
            "auto" takes ``Uint8ImageDivQAT``, for pixel/255 in [0, 1], or, where ``forward``
            scales its input before the first layer (mean and standard deviation, batch norm,
            ``2 * x - 1``), ``Int8ActPerTensorFloatDivQAT``, which is calibrated on what arrives.
            Images that are normalised outside of the model need the latter, too.
        first_bit_width: weight bit width of the first weighted layer, in module order.
        last_bit_width: weight bit width of the last one. None keeps the class's.
        join_bit_width: bit width of the branches of sums, each a ``Join``, 2 to 8; None: that of
            ``act``. One more than that of ``act`` or wider, an identity shortcut passes the codes
            of the activation in front of it unchanged: both have one scale, up to a power of two.
        filter_fn: called with (qualified name, module); False leaves that module as it is.

    Returns:
        The swapped copy, in the same mode (train or eval), with weight scales initialised
        from the weights carried over. A parameter with ``requires_grad=False`` keeps it, and the
        scale of a frozen weight or of a frozen quantizer is frozen with it.

    Raises:
        InputError: layers that cannot be swapped or copied, all named, with the remedy.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        ...                     nn.Flatten(), nn.Linear(4 * 36, 10))
        >>> swap_quantizers(net)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    result = deep_copy(model)
    modules = dict(walk(result))
    chosen = {n: m for n, m in modules.items() if filter_fn is None or filter_fn(n, m)}
    refuse_unswappable(result, chosen)
    weighted = [name for name, module in chosen.items() if is_weighted(module)]
    bit_widths = {weighted[0]: first_bit_width}
    bit_widths[weighted[-1]] = last_bit_width or bit_widths.get(weighted[-1])
    # Quantizers before the first weighted layer describe the input; copies of torch.fx models
    # have their modules in order of execution.
    order = list(modules)
    first = order.index(weighted[0])
    has_input = any(_quantizes_input(modules[name]) for name in order[: first + 1])

    if input_act == "auto":
        scaled = not has_input and scales_input(result, weighted[0])
        input_act = Int8ActPerTensorFloatDivQAT if scaled else Uint8ImageDivQAT

    acts = _ActQuantizers(act)
    sources = {} if join_bit_width is None else shortcut_sources(model)
    replaced: dict[int, nn.Module] = {}  # a module used under two names is swapped once
    # A Join comes after the activation whose scale it may share.
    for name, module in sorted(chosen.items(), key=lambda item: type(item[1]) is Join):
        if id(module) in replaced:
            new = replaced[id(module)]
        elif type(module) is Join:
            source = replaced.get(id(modules.get(sources.get(name, ""))))
            quantizer = join_quantizer(act, join_bit_width, source)
            new = ACTIVATIONS[Join](act_quant=quantizer).train(module.training)
            replaced[id(module)] = new
        else:
            bits = bit_widths.get(name)
            new = _swap(
                module,
                weight=weight if bits is None else weight.let(bit_width=bits),
                acts=acts,
                input_act=None if has_input or name != weighted[0] else input_act,
                describes_input=order.index(name) <= first,
            )
            replaced[id(module)] = new
        if new is not module:
            result = _put(result, name, new)
    for module in result.modules():
        if isinstance(module, QuantWeightBiasInputOutputLayer):
            with torch.no_grad():  # a learned scale takes its value in the first forward pass
                module.quant_weight()
    return result


def _swap(
    module: nn.Module, weight: Any, acts: "_ActQuantizers", input_act: Any, describes_input: bool
) -> nn.Module:
    """The counterpart of one layer: a new one, or the layer itself with its quantizers changed."""
    if type(module) in WEIGHTED:
        return _quantized_layer(module, weight, input_act)
    if type(module) in ACTIVATIONS:
        kind = QuantIdentity if acts.signs else ACTIVATIONS[type(module)]
        return kind(act_quant=acts.act).train(module.training)
    if isinstance(module, QuantWeightBiasInputOutputLayer):
        if module.weight_quant.is_quant_enabled:
            module.weight_quant = weight.proxy_class(module, weight)
            _freeze_scale(module)
        if not describes_input:
            acts.replace(module, "input_quant")
        elif input_act is not None:
            injector = input_act.let(act_impl=None, passthrough_act=True)
            module.input_quant = injector.proxy_class(module, injector).train(module.training)
        acts.replace(module, "output_quant")
    elif isinstance(module, QuantNonLinearActLayer) and not describes_input:
        acts.replace(module, "act_quant")
    return module


def _quantizes_input(module: nn.Module) -> bool:
    """Whether an activation quantizer of this module acts on what the module takes."""
    name = "act_quant" if isinstance(module, QuantNonLinearActLayer) else "input_quant"
    return isinstance(module, BREVITAS) and bool(getattr(module, name).is_quant_enabled)


def _quantized_layer(module: Any, weight: Any, input_act: Any) -> nn.Module:
    kind: Any = WEIGHTED[type(module)]
    names = (
        ("in_features", "out_features")
        if isinstance(module, nn.Linear)
        else (
            "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation",
            "groups", "padding_mode",
        )
    )  # fmt: skip
    new = kind(
        **{name: getattr(module, name) for name in names},
        bias=module.bias is not None,
        weight_quant=weight,
        input_quant=input_act,
        device=module.weight.device,
        dtype=module.weight.dtype,
    )
    with torch.no_grad():
        new.weight.copy_(module.weight)
        if module.bias is not None:
            new.bias.copy_(module.bias)
            new.bias.requires_grad_(module.bias.requires_grad)
    new.weight.requires_grad_(module.weight.requires_grad)
    _freeze_scale(new)
    result: nn.Module = new.train(module.training)
    return result


def _freeze_scale(layer: Any) -> None:
    """Freeze the weight's scale if the weight is frozen: together they are the layer."""
    if not layer.weight.requires_grad:
        layer.weight_quant.requires_grad_(False)


class _ActQuantizers:
    """New activation quantizers for old ones; what old ones share, their successors share.

    Branches of a sum have one scale: by one quantizer in several layers, or, as Brevitas'
    ``graph.quantize`` has it, by one ``tensor_quant`` or ``scaling_impl`` in several quantizers.
    """

    def __init__(self, act: Any) -> None:
        self.act = act
        proxy: Any = QuantIdentity(act_quant=act).act_quant.fused_activation_quant_proxy
        self.signs = isinstance(proxy.tensor_quant, BinaryQuant | ClampedBinaryQuant)
        # By the old object's id; the object itself is kept, or its id would be used again.
        self._made: dict[int, tuple[Any, Any]] = {}

    def replace(self, module: Any, attribute: str) -> None:
        """Replace the quantizer ``module.attribute`` if it is enabled."""
        old = getattr(module, attribute)
        if not old.is_quant_enabled:
            return
        new = self._successor(old)
        if new is None:
            injector = self._injector(old)
            new = injector.proxy_class(module, injector).train(module.training)
            parameters = list(old.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                new.requires_grad_(False)
            tensor_quant = old.fused_activation_quant_proxy.tensor_quant
            made = new.fused_activation_quant_proxy.tensor_quant
            for before, after in ((old, new), *_shareable(tensor_quant, made)):
                self._made.setdefault(id(before), (before, after))
        else:
            new.add_tracked_module(module)
        setattr(module, attribute, new)

    def _injector(self, old: Any) -> Any:
        function = type(old.fused_activation_quant_proxy.activation_impl)
        rectified = function.__name__ != "Identity" and not self.signs
        quantizer = self.act.let(act_impl=function if rectified else None, passthrough_act=True)
        if old.is_signed:
            quantizer = quantizer.let(signed=True)
        tensor_quant = old.fused_activation_quant_proxy.tensor_quant
        whole = self._successor(tensor_quant)
        if whole is not None:
            return quantizer.let(tensor_quant=whole)
        scaling = self._successor(getattr(tensor_quant, "scaling_impl", None))
        if scaling is None:
            return quantizer
        bounds = self._successor(tensor_quant.int_scaling_impl)
        return quantizer.let(
            scaling_impl=scaling, **({"int_scaling_impl": bounds} if bounds else {})
        )

    def _successor(self, old: Any) -> Any:
        return self._made.get(id(old), (old, None))[1]


def _shareable(old: Any, new: Any) -> list[tuple[Any, Any]]:
    """The parts of a ``tensor_quant`` that quantizers of one scale have in common."""
    parts = [(old, new)]
    for name in ("scaling_impl", "int_scaling_impl"):
        before, after = getattr(old, name, None), getattr(new, name, None)
        if before is not None and after is not None:
            parts.append((before, after))
    return parts


def _put(root: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """Put ``new`` under ``name``; gives the root, which is ``new`` itself for the empty name."""
    if not name:
        return new
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, new)
    return root
