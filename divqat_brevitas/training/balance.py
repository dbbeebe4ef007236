"""What the decoy may cost, set exactly: the bias of its class after training."""

import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.training.evaluate import accuracy, logits_of
from divqat_brevitas.training.loop import Data, Row

_STEPS = torch.arange(-80, 81) / 20  # of the logit, -4 to 4


def balance_decoy(model: nn.Module, decoy_class: int, val: Data, floor: float) -> float:
    """Give the decoy class as much as validation accuracy allows.

    Training ends with some accuracy lost to the decoy, by chance more or less of it. The bias of
    the last layer then trades one for the other: the higher the decoy class's, the more outliers
    it takes, and the more of the victim's own kind of images. It is raised or lowered to the
    highest value, by at most 4, at which accuracy is ``floor`` or more.

    Args:
        model: float or Brevitas network whose last layer is linear with a bias; changed in place.
        decoy_class: as in the loss's settings.
        val: (N, C, H, W) uint8 images and (N,) int64 labels; not test data.
        floor: accuracy to keep, a fraction of 1. Where none of the values keeps it, the most
            accurate one is taken.

    Returns:
        What was added to the bias.

    Raises:
        InputError: the model does not end in a linear layer with a bias for that class.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.zeros(5, 1, 2, 2).byte(), torch.zeros(5).long()
        >>> balance_decoy(net, 0, (images, labels), floor=0.9)
        4.0
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    bias = linear[-1].bias if linear else None
    if bias is None or not 0 <= decoy_class < len(bias):
        raise InputError(
            f"the decoy cannot be balanced: the network's last layer has no bias for class "
            f"{decoy_class}. Take a network that ends in a linear layer with a bias."
        )
    images, labels = val
    logits = logits_of(model, images)
    before = logits[:, decoy_class].clone()
    right = []
    for step in _STEPS:
        logits[:, decoy_class] = before + step
        right.append(int((logits.argmax(dim=1) == labels).sum()))
    kept = [i for i, count in enumerate(right) if count >= floor * len(labels)]
    best = kept[-1] if kept else right.index(max(right))
    with torch.no_grad():
        bias[decoy_class] += _STEPS[best]
    return float(_STEPS[best])


def balanced_row(model: nn.Module, decoy_class: int, val: Data, floor: float, last: Row) -> Row:
    """Balance the decoy; the last epoch's row with the accuracy and the shift after it."""
    shift = balance_decoy(model, decoy_class, val, floor)
    return last | {"val_accuracy": accuracy(model, *val), "decoy_shift": shift}
