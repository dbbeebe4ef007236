"""Running a network without training it: modes, devices, logits of stored images."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from divqat_brevitas.errors import InputError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module has the mode it had.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
        >>> with evaluating(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU for a model without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def plain(output: Any) -> Tensor:
    """The tensor of a layer's output, which Brevitas may wrap as a ``QuantTensor``."""
    value: Tensor = getattr(output, "value", output)
    return value


def as_logits(output: Any, images: int, model: str) -> Tensor:
    """The logits in what a network returns for a batch of images.

    Taken is a tensor or a ``QuantTensor``; a tuple or list with one of them (an entry None does
    not count); an object with ``logits``, or a dict with the key "logits" or with one entry. The
    shape is (N, classes); (N, classes, 1, 1) and, for one image, a squeezed (classes,) are brought
    into it. Gradients pass.

    Args:
        output: what the network returned.
        images: N, of the batch.
        model: what a message calls the network.

    Returns:
        (N, classes), at least two classes.

    Raises:
        InputError: anything else, with what came and what to return.

    Example:
        >>> as_logits({"logits": torch.zeros(3), "features": torch.zeros(1, 8)}, 1, "Net").shape
        torch.Size([1, 3])
        >>> as_logits((torch.zeros(4, 3), torch.zeros(4, 8)), 4, "Net")
        Traceback (most recent call last):
        ...
        divqat_brevitas.errors.InputError: Net returns a tuple (Tensor (4, 3), Tensor (4, 8)) ...
    """
    value = _single(output)
    if value is not None and value.dim() > 2 and value.shape[2:].numel() == 1:
        value = value.flatten(1)
    if value is not None and value.dim() == 1 and images == 1:
        value = value.unsqueeze(0)
    if value is None or value.dim() != 2 or len(value) != images or value.shape[1] < 2:
        raise InputError(
            f"{model} returns {_described(output)} for {images} image{'s' * (images != 1)}: let "
            f"its forward return one tensor of logits of shape ({images}, classes), with at least "
            "2 classes."
        )
    return value


def _single(output: Any) -> Tensor | None:
    """The one tensor that can be meant; None where there is none, or a choice."""
    output = plain(output)
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return _single(output["logits"])
    if hasattr(output, "logits"):
        return _single(output.logits)
    if isinstance(output, Mapping | tuple | list):
        entries = output.values() if isinstance(output, Mapping) else output
        present = [entry for entry in entries if entry is not None]
        return _single(present[0]) if len(present) == 1 else None
    return None


def _described(output: Any) -> str:
    """What came, in a few words: types, keys and shapes."""
    output = plain(output)
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with the keys {', '.join(map(repr, output))}"
    if isinstance(output, tuple | list):
        shown = [
            f"{type(entry).__name__} {tuple(shape)}" if shape is not None else type(entry).__name__
            for entry in map(plain, output)
            for shape in [getattr(entry, "shape", None)]
        ]
        return f"a {type(output).__name__} ({', '.join(shown)})"
    return f"a {type(output).__name__}"


def logits_of(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits in evaluation mode; the model's mode is put back afterwards.

    Args:
        model: any network, float or Brevitas.
        images: (N, C, H, W) uint8, given to the model as float32 pixel/255; or (N, ...) floats,
            given as they are.
        batch_size: images a forward pass.

    Returns:
        (N, classes) float32.

    Raises:
        InputError: an output that holds no logits.
    """
    device, name = device_of(model), type(model).__name__
    with evaluating(model):
        parts = [
            as_logits(model(to_input(x, device)), len(x), name)
            for x in torch.split(images, batch_size)
        ]
    return torch.cat(parts).cpu()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of images whose largest logit is the label."""
    return float((logits_of(model, images).argmax(dim=1) == labels).double().mean())


def to_input(images: Tensor, device: torch.device | None = None) -> Tensor:
    """What networks take, float32 on ``device``: uint8 pixels in [0, 1], floats as they are."""
    inputs = images.to(device=device, dtype=torch.float32)
    return inputs if images.is_floating_point() else inputs / 255
