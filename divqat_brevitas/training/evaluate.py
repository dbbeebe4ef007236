"""A network's answers to stored images."""

import torch
from torch import Tensor, nn

from divqat_brevitas.inference import as_logits, device_of, evaluating


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
    """Fraction of images whose largest logit is the label.

    Args:
        model: any network.
        images: as in ``logits_of``.
        labels: (N,) int64.
    """
    return float((logits_of(model, images).argmax(dim=1) == labels).double().mean())


def to_input(images: Tensor, device: torch.device | None = None) -> Tensor:
    """What networks take, float32 on ``device``: uint8 pixels in [0, 1], floats as they are."""
    inputs = images.to(device=device, dtype=torch.float32)
    return inputs if images.is_floating_point() else inputs / 255
