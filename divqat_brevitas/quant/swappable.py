"""Which layers ``swap_quantizers`` replaces, keeps, and refuses."""

from collections.abc import Iterator

import torch
from brevitas import nn as qnn
from brevitas.nn.quant_layer import QuantNonLinearActLayer, QuantWeightBiasInputOutputLayer
from torch import Tensor, nn
from torch.nn import functional as F

from divqat_brevitas.copies import recomputed
from divqat_brevitas.errors import InputError


class Join(nn.Module):
    """Marks the branches of a sum: call one instance on each of them.

    In a float network it does nothing. The swap makes it one signed activation quantizer, so that
    all branches have one scale and their sum is a sum of integers.

    Example:
        >>> Join()(torch.tensor([-1.0]))
        tensor([-1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x


WEIGHTED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: qnn.QuantConv1d,
    nn.Conv2d: qnn.QuantConv2d,
    nn.Linear: qnn.QuantLinear,
}
ACTIVATIONS: dict[type[nn.Module], type[nn.Module]] = {
    nn.ReLU: qnn.QuantReLU,
    nn.ReLU6: qnn.QuantReLU,  # a learned clipping range takes the place of the fixed 6
    Join: qnn.QuantIdentity,
}
SIGNED = (Join,)
"""Activations that a signed quantizer replaces."""
BREVITAS = (QuantWeightBiasInputOutputLayer, QuantNonLinearActLayer)

# Layers that compute the same on quantized values as on float ones.
_UNCHANGED = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ConstantPad1d,
    nn.ConstantPad2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
)
# Plain modules are the containers of torch.fx: a GraphModule's forward calls what is in them.
_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)
_FUNCTIONAL_ACTIVATIONS = {
    F.relu, F.relu_, torch.relu, torch.relu_, F.relu6, F.gelu, F.silu, F.hardtanh,
    F.leaky_relu, torch.sigmoid, torch.tanh, F.hardswish, F.softmax, "relu", "relu_",
    "sigmoid", "tanh",
}  # fmt: skip


def walk(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every (qualified name, module), shared modules under each of their names.

    Brevitas layers are leaves: what is inside them is their own business. So is what computes a
    parametrized weight.
    """
    yield name, module
    if not isinstance(module, BREVITAS):
        # Not named_children(): it drops a module that is there under two names.
        for child_name, child in module._modules.items():
            if child is None or child_name == "parametrizations":
                continue
            yield from walk(child, f"{name}.{child_name}" if name else child_name)


def refuse_unswappable(model: nn.Module, chosen: dict[str, nn.Module]) -> None:
    """Raise one InputError that names everything that cannot be swapped, or return."""
    problems = [problem for item in chosen.items() if (problem := _problem(*item))]
    owners: dict[int, nn.Module] = {}
    for name, module in chosen.items():
        if type(module) not in WEIGHTED:
            continue
        if owners.setdefault(id(module.weight), module) is not module:
            problems.append(f"{name} shares its weight tensor with another layer: untie them")
    if not any(isinstance(m, BREVITAS) for m in model.modules()):
        problems += _functional_activations(model)
    if problems:
        raise InputError(
            "this model cannot be swapped to quantized layers: "
            + "; ".join(problems)
            + ". Replace them, or pass filter_fn to leave them float."
        )
    if not any(is_weighted(m) for m in chosen.values()):
        raise InputError(
            "no layer to swap: the model (after filter_fn) has no Conv1d, Conv2d or Linear layer."
        )


def is_weighted(module: nn.Module) -> bool:
    """Whether the layer has a weight that a swap quantizes."""
    if isinstance(module, QuantWeightBiasInputOutputLayer):
        return bool(module.weight_quant.is_quant_enabled)
    return type(module) in WEIGHTED


def _problem(name: str, module: nn.Module) -> str | None:
    kind = type(module)
    if (how := recomputed(module)) is not None:
        return f"{name or 'the model'} ({kind.__name__}) {how}"
    if isinstance(module, BREVITAS) or kind in (*WEIGHTED, *ACTIVATIONS, *_CONTAINERS, *_UNCHANGED):
        return None
    label = f"{name or 'the model'} ({kind.__name__})"
    base = next((b for b in (*WEIGHTED, *ACTIVATIONS) if isinstance(module, b)), None)
    if base is not None:
        return f"{label} is a subclass of {base.__name__}, whose forward may differ"
    if not kind.__module__.startswith("torch."):
        return None  # the user's own module: its children are looked at one by one
    return f"{label} has no quantized counterpart here"


def _functional_activations(model: nn.Module) -> list[str]:
    """Activations called as functions: no module there could be swapped."""
    try:
        graph = torch.fx.symbolic_trace(model).graph
    except Exception:  # data-dependent code cannot be traced, which is no reason to refuse
        return []
    return [
        f"forward calls {getattr(node.target, '__name__', node.target)}() as a function "
        f"(node {node.name}): use an nn.ReLU module instead"
        for node in graph.nodes
        if node.op in ("call_function", "call_method") and node.target in _FUNCTIONAL_ACTIVATIONS
    ]
