"""What an attacker does to a clone to lose the fingerprint: fine-tuning, pruning, fewer bits.

A second extraction needs no function: the clone is the victim of another attack.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Labels, to_float
from divqat_brevitas.extraction.surrogates.training import SurrogateTraining, train_surrogate


def fine_tuned(
    clone: nn.Module,
    images: NDArray[Any],
    labels: Labels,
    epochs: int = 5,
    learning_rate: float = 0.01,
    seed: int = 0,
) -> nn.Module:
    """A copy of a clone, trained further on images with labels of the attacker's own.

    Args:
        clone: images to logits (N, classes).
        images: uint8 or float32 (N, C, H, W).
        labels: (N,) not the victim's responses.
        epochs: passes over them.
        learning_rate: peak of the schedule.
        seed: of the order of images.

    Example:
        >>> images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
        >>> clone = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> type(fine_tuned(clone, images, np.arange(40) % 3, epochs=1)).__name__
        'Sequential'
    """
    tuned = copy.deepcopy(clone)
    with torch.no_grad():
        classes = tuned(torch.from_numpy(to_float(images[:1]))).shape[1]
    targets = np.eye(classes, dtype=np.float32)[labels]
    settings = SurrogateTraining(learning_rate=learning_rate)
    train_surrogate(tuned, images, targets, epochs=epochs, seed=seed, settings=settings)
    return tuned


def pruned(clone: nn.Module, share: float) -> nn.Module:
    """A copy of a clone with the smallest weights of each layer set to zero.

    Args:
        clone: any network.
        share: of each convolution's and linear layer's weights, a fraction of 1.

    Example:
        >>> bool((pruned(nn.Linear(4, 4), 0.5).weight == 0).sum() == 8)
        True
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of pruned weights must be in [0, 1), but is {share}.")
    result = copy.deepcopy(clone)
    with torch.no_grad():
        for weight in _weights(result):
            count = round(share * weight.numel())
            weight.view(-1)[weight.abs().view(-1).argsort()[:count]] = 0
    return result


def requantized(clone: nn.Module, bits: int) -> nn.Module:
    """A copy of a clone with its weights rounded to a few bits, a symmetric scale a channel.

    Args:
        clone: any network.
        bits: 2 or more.

    Example:
        >>> len(requantized(nn.Linear(100, 1), 3).weight.unique()) <= 7
        True
    """
    if bits < 2:
        raise InputError(f"weights need at least 2 bits, but bits={bits}.")
    result, most = copy.deepcopy(clone), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for weight in _weights(result):
            scale = weight.abs().flatten(1).amax(dim=1).clamp(min=1e-12) / most
            scale = scale.view(-1, *[1] * (weight.dim() - 1))
            weight.copy_((weight / scale).round() * scale)
    return result


def _weights(network: nn.Module) -> list[torch.Tensor]:
    return [m.weight.data for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
