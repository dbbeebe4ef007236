"""Say what a layer quantizes to, in words and numbers, and who can run it.

Brevitas spreads the answer over injectors, solvers and proxies; here it is read off the layer as
it is now.
"""

from dataclasses import dataclass

from brevitas.nn.quant_layer import QuantNonLinearActLayer, QuantWeightBiasInputOutputLayer
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.quant.describe import ROLES, Quantization, describe
from divqat_brevitas.quant.swappable import WEIGHTED, walk
from divqat_brevitas.short_repr import ShortRepr


@dataclass(frozen=True)
class LayerExplanation(ShortRepr):
    """What one layer quantizes.

    Attributes:
        name: as in ``model.named_modules()``; empty for the module itself.
        kind: the layer's class.
        quantizers: its enabled quantizers.
        note: said of a layer without any.
    """

    name: str
    kind: str
    quantizers: tuple[Quantization, ...]
    note: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from the integer engine, one sentence each."""
        said = [f"{q.role}: {q.integer_problem}" for q in self.quantizers if q.integer_problem]
        return (*said, *([self.note] if self.note else []))

    def __str__(self) -> str:
        lines = [f"{self.name or 'layer'} ({self.kind})"]
        for quantizer in self.quantizers:
            lines += [f"  {line}" for line in str(quantizer).splitlines()]
        return "\n".join(lines + ([f"  {self.note}"] if self.note else []))


@dataclass(frozen=True)
class Explanation(ShortRepr):
    """What a model's layers quantize, in module order; ``print`` it.

    Attributes:
        layers: every layer that quantizes, and every float layer with weights.
    """

    layers: tuple[LayerExplanation, ...]

    def __getitem__(self, name: str) -> LayerExplanation:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise InputError(
            f"no layer {name!r} here: {', '.join(layer.name for layer in self.layers)}"
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps the model from the integer engine, the layer named first."""
        return tuple(
            f"{layer.name or 'layer'}: {p}" for layer in self.layers for p in layer.problems
        )

    def __str__(self) -> str:
        return "\n".join(str(layer) for layer in self.layers)


def explain(module: nn.Module) -> Explanation:
    """What a layer, or every layer of a model, quantizes to.

    Nothing is changed: not the scales, not the mode, not the random state. Quantizers are looked
    at one by one; whether the layers fit together is for the export to say
    (``fpga_flow.export_qonnx``), and for ``divqat check`` on the file.

    Raises:
        InputError: nothing in it has weights or quantizes.

    Example:
        >>> from brevitas.nn import QuantConv2d
        >>> from divqat_brevitas.quant import Int4WeightPerChannelFloatDivQAT
        >>> conv = QuantConv2d(3, 8, 3, weight_quant=Int4WeightPerChannelFloatDivQAT)
        >>> weight = explain(conv).layers[0].quantizers[0]
        >>> weight.bit_width, weight.codes, weight.scales, weight.integer_problem
        (4, (-7, 7), 8, None)
    """
    layers = []
    seen: set[int] = set()
    for name, child in walk(module):
        if id(child) in seen:
            continue
        seen.add(id(child))
        if isinstance(child, QuantWeightBiasInputOutputLayer | QuantNonLinearActLayer):
            layers.append(_quantized(name, child))
        elif isinstance(child, tuple(WEIGHTED)):
            note = "float: no integer engine or FINN can take it; swap_quantizers quantizes it"
            layers.append(LayerExplanation(name, type(child).__name__, (), note))
    if not layers:
        raise InputError(
            f"{type(module).__name__} has no layer with weights or quantizers: pass a Brevitas "
            "layer, or a model with some."
        )
    return Explanation(tuple(layers))


def _quantized(name: str, layer: nn.Module) -> LayerExplanation:
    found = []
    for role, attribute in ROLES.items():
        proxy = getattr(layer, attribute, None)
        if proxy is None or not proxy.is_quant_enabled:
            continue
        if role == "bias" and getattr(layer, "bias", None) is None:
            continue
        # QuantIdentity and its kin keep an input quantizer under two names.
        if role == "input" and proxy is getattr(layer, "act_quant", None):
            continue
        found.append(describe(layer, role))
    note = ""
    if (
        isinstance(layer, QuantWeightBiasInputOutputLayer)
        and not layer.weight_quant.is_quant_enabled
    ):
        note = "its weights are float: give it a weight_quant"
    elif not found:
        note = "quantizes nothing: its quantizer is disabled"
    return LayerExplanation(name, type(layer).__name__, tuple(found), note)
