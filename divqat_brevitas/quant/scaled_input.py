"""Whether a model's forward scales its input before the first weighted layer."""

import math
from typing import Any

import torch.fx
from torch import nn

from divqat_brevitas.quant.swappable import BREVITAS

# Operators whose results are values of their input, zeros, or between: pixels stay in [0, 1].
_KEEPING = {
    "adaptive_avg_pool2d", "avg_pool2d", "cat", "chunk", "clamp", "clip", "clone", "contiguous",
    "cpu", "cuda", "detach", "dropout", "expand", "flatten", "float", "getattr", "getitem",
    "interpolate", "max_pool2d", "movedim", "narrow", "pad", "permute", "reshape", "size",
    "squeeze", "stack", "to", "transpose", "type", "unflatten", "unsqueeze", "view",
}  # fmt: skip
_KEEPING_MODULES = (
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Flatten,
    nn.Identity,
    nn.MaxPool2d,
    nn.Unflatten,
    nn.Upsample,
    nn.ZeroPad2d,
)
_BY_255 = {
    "div": 255.0, "truediv": 255.0, "true_divide": 255.0, "div_": 255.0, "itruediv": 255.0,
    "mul": 1 / 255, "multiply": 1 / 255, "mul_": 1 / 255, "imul": 1 / 255,
}  # fmt: skip


def scales_input(model: nn.Module, layer: str) -> bool:
    """Whether anything before ``layer`` takes pixels out of [0, 1].

    A normalisation, a batch norm, ``2 * x - 1`` do; reshaping, pooling and one division by 255 of
    raw pixels do not. A forward that torch.fx cannot trace up to the layer is not seen through.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = nn.Conv2d(1, 4, 3)
        ...     def forward(self, x):
        ...         return self.conv((x - 0.13) / 0.31)
        >>> scales_input(Net(), "conv")
        True
    """
    tracer = _Tracer(model.get_submodule(layer))
    try:
        tracer.trace(model)
    except _FoundError as found:
        nodes = found.before
    except Exception:  # data-dependent code: what it computes is seen when it runs
        return False
    else:
        return False
    scaling = [node for node in nodes if _scales(node, model)]
    return not (len(scaling) <= 1 and all(_divides_by_255(node) for node in scaling))


class _FoundError(Exception):
    """The layer is reached; ``before`` are the nodes that its input follows from."""

    def __init__(self, before: list[torch.fx.Node]) -> None:
        super().__init__()
        self.before = before


class _Tracer(torch.fx.Tracer):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """PyTorch's and Brevitas' layers, and torchvision's transforms."""
        if isinstance(m, BREVITAS) or type(m).__module__.startswith("torchvision.transforms"):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Stops at the layer."""
        if m is self.layer:
            raise _FoundError(_ancestors([*args, *kwargs.values()]))
        return super().call_module(m, forward, args, kwargs)


def _ancestors(values: list[Any]) -> list[torch.fx.Node]:
    """All nodes that the values follow from."""
    waiting = [value.node for value in values if isinstance(value, torch.fx.Proxy)]
    found: dict[torch.fx.Node, None] = {}
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += node.all_input_nodes
    return list(found)


def _scales(node: torch.fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return not isinstance(model.get_submodule(str(node.target)), _KEEPING_MODULES)
    return node.op in ("call_function", "call_method") and _operator(node) not in _KEEPING


def _divides_by_255(node: torch.fx.Node) -> bool:
    factor = _BY_255.get(_operator(node))
    numbers = [a for a in node.args if isinstance(a, int | float)]
    return factor is not None and len(numbers) == 1 and math.isclose(numbers[0], factor)


def _operator(node: torch.fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))
