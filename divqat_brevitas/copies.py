"""Copies of a user's network: the frozen reference, and what prevents a copy."""

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from divqat_brevitas.errors import InputError

_UTILS = "torch.nn.utils"


def deep_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model``, with its modes, devices and ``requires_grad``, that shares no tensor.

    Raises:
        InputError: the network cannot be copied; every module at fault is named with the remedy.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> deep_copy(net).weight is net.weight
        False
        >>> _ = prune.l1_unstructured(net, "weight", 0.5)
        >>> deep_copy(net)
        Traceback (most recent call last):
        ...
        divqat_brevitas.errors.InputError: this Linear cannot be copied: ...
    """
    try:
        return copy.deepcopy(model)
    except Exception as e:  # a module may hold anything: a lock, a file, a part of a graph
        problems = list(_problems(model)) or [f"{type(e).__name__}: {e}"]
        raise InputError(
            f"this {type(model).__name__} cannot be copied: {'; '.join(problems)}."
        ) from e


def recomputed(module: nn.Module) -> str | None:
    """How a module computes its weight anew at each call, with the remedy; None: it does not.

    Such a weight is a function of other parameters, which a quantized layer does not have.

    Example:
        >>> recomputed(prune.identity(nn.Linear(2, 2), "weight"))
        "is pruned: make the pruning permanent with torch.nn.utils.prune.remove(module, 'weight')"
        >>> recomputed(nn.Linear(2, 2)) is None
        True
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            return (
                "is pruned: make the pruning permanent with "
                f"{_UTILS}.prune.remove(module, {name!r})"
            )
        if isinstance(hook, WeightNorm):
            return (
                f"has old-style weight normalisation: take it out with {_UTILS}.remove_weight_norm("
                f"module), or use {_UTILS}.parametrizations.weight_norm in its place"
            )
        if isinstance(hook, SpectralNorm):
            return (
                "has old-style spectral normalisation: take it out with "
                f"{_UTILS}.remove_spectral_norm(module), or use "
                f"{_UTILS}.parametrizations.spectral_norm in its place"
            )
    if parametrize.is_parametrized(module):
        names = ", ".join(map(repr, module.parametrizations))  # type: ignore[arg-type]
        return (
            f"has a parametrization of {names}: make it permanent with "
            f"{_UTILS}.parametrize.remove_parametrizations(module, name)"
        )
    return None


def _problems(model: nn.Module) -> Iterator[str]:
    """What cannot be copied, by the module that holds it."""
    for name, module in model.named_modules():
        label = f"{name or 'the model itself'} ({type(module).__name__})"
        own = {k: v for k, v in vars(module).items() if k not in ("_modules", "_parameters")}
        if not any(_fails(value) for value in own.values()):
            continue
        if (how := recomputed(module)) is not None:
            yield f"{label} {how}"
            continue
        own |= own.pop("_buffers", {})
        for key, value in own.items():
            if not _fails(value):
                continue
            if _holds_graph(value):
                yield (
                    f"{label} keeps a computed tensor in self.{key}: keep {key}.detach(), or set "
                    "it to None before"
                )
            else:
                yield f"{label} holds a {type(value).__name__} in self.{key}, which has no copy"


def _fails(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:  # the same failure as the whole model's
        return True
    return False


def _holds_graph(value: Any) -> bool:
    """Whether a value is, or holds, a tensor that autograd computed."""
    if isinstance(value, Tensor):
        return value.grad_fn is not None
    if isinstance(value, dict):
        return any(map(_holds_graph, value.values()))
    return isinstance(value, list | tuple | set) and any(map(_holds_graph, value))


def freeze_reference(model: nn.Module) -> nn.Module:
    """A frozen copy of ``model``: evaluation mode for good, no gradient ever.

    The copy stays in evaluation mode even when a parent module is switched to training, so
    its batch-norm statistics never move; the model passed in is not changed.

    Raises:
        InputError: a network that cannot be copied, with the remedy.

    Example:
        >>> reference = freeze_reference(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
        >>> reference.train()[0][1].training
        False
    """
    reference = deep_copy(model).eval().requires_grad_(False)
    return _Frozen(reference).eval()


class _Frozen(nn.Sequential):
    """Holds one network and ignores requests to train it."""

    def train(self, mode: bool = True) -> "_Frozen":
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "_Frozen":
        return super().requires_grad_(False)
