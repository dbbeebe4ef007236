"""The reject class or output: outliers for its training, its selection, and what it may cost."""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from divqat_brevitas.data.arrays import Shape
from divqat_brevitas.data.pools import query_pool
from divqat_brevitas.errors import InputError
from divqat_brevitas.inference import accuracy, logits_of, to_input
from divqat_brevitas.quant.loss import DivQATLoss, loss_settings
from divqat_brevitas.quant.outliers import synthetic_outliers
from divqat_brevitas.training.loop import Data, Row

_COUNT = 20_000  # outliers drawn from a pool
_MOST = 5000  # images for the selection of the class


def loss_for(
    reference: nn.Module,
    preset: str,
    dataset: str,
    root: Path | None = None,
    shape: Shape | None = None,
    **changes: Any,
) -> DivQATLoss:
    """A loss whose pool of outliers, if it has one, is drawn in the shape of the victim's images.

    Args:
        reference: the frozen float network.
        preset: of the loss.
        dataset: registry name of the victim's data set.
        root: data folder; None: the cache.
        shape: (C, H, W) of the victim's images; None: the data set's own.
        **changes: any field of ``LossSettings``.

    Raises:
        InputError: bad settings, or a pool whose material is not there.

    Example:
        >>> from divqat_brevitas import freeze_reference
        >>> loss = loss_for(freeze_reference(nn.Linear(4, 3)), "decoy", "digits")
        >>> loss.settings.ood_pool
        ''
    """
    settings = loss_settings(preset, **changes)
    outliers = None
    if settings.trained_pool:
        outliers = _drawn(settings.trained_pool, dataset, root, shape)
    return DivQATLoss(reference, preset, outliers=outliers, **changes)


@lru_cache(maxsize=2)
def _drawn(pool: str, dataset: str, root: Path | None, shape: Shape | None) -> Tensor:
    """Always the same images: training does not depend on an attacker's seed."""
    return torch.tensor(query_pool(pool, dataset, _COUNT, 0, root, shape).images)


def find_reject_class(reference: nn.Module, images: Tensor, seed: int = 0) -> int:
    """The class that a network gives to most synthetic outliers.

    As ``decoy_class`` of the loss it costs least accuracy. On Fashion-MNIST it is the bag, with
    half of the outliers.

    Args:
        reference: the float network, trained.
        images: (N, C, H, W) uint8 training images; the first 5,000 are used.
        seed: of the outliers.

    Raises:
        InputError: no images.

    Example:
        >>> images = torch.randint(0, 256, (64, 1, 8, 8)).byte()
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        >>> 0 <= find_reject_class(net, images) < 4
        True
    """
    if len(images) == 0:
        raise InputError("find_reject_class needs training images to make outliers from.")
    made = synthetic_outliers(to_input(images[:_MOST]), Generator().manual_seed(seed))
    guesses = logits_of(reference, (255 * made).round().to(torch.uint8)).argmax(dim=1)
    return int(guesses.bincount().argmax())


def add_reject_output(model: nn.Module) -> nn.Module:
    """A copy of a network with one output more: its weights are 0, its bias low.

    Args:
        model: float network whose last layer is linear with a bias.

    Raises:
        InputError: it ends in something else.

    Example:
        >>> net = add_reject_output(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        >>> net(torch.zeros(1, 1, 2, 2)).shape
        torch.Size([1, 4])
    """
    model = deepcopy(model)
    name, linear = _last_linear(model)
    wider = nn.Linear(linear.in_features, linear.out_features + 1)
    with torch.no_grad():
        wider.weight[:-1], wider.bias[:-1] = linear.weight, linear.bias
        wider.weight[-1], wider.bias[-1] = 0, linear.bias.min() - 1
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, wider.to(linear.weight))
    return model


def _last_linear(model: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last linear layer, which has a bias."""
    linear = [(name, one) for name, one in model.named_modules() if isinstance(one, nn.Linear)]
    if not linear or linear[-1][1].bias is None:
        raise InputError(
            "the network's last layer has no bias for a reject class or output. Take a network "
            "that ends in a linear layer with a bias."
        )
    return linear[-1]


_STEPS = torch.arange(-80, 81) / 20  # of the logit, -4 to 4
_MORE_STEPS = torch.arange(-160, 161) / 20  # of a reject output's, that no class holds back


def balance_reject_class(
    model: nn.Module, decoy_class: int | None, val: Data, floor: float
) -> float:
    """Set the bias of the reject class to the highest value that validation accuracy allows.

    The accuracy that training loses to the reject class varies. The class's bias in the last layer
    trades one for the other: a higher bias takes more outliers, and more in-distribution images. It
    is changed by at most 4 (of a reject output 8), to the highest value at which accuracy is
    ``floor`` or more. An image with the reject output as its label counts as wrong.

    Args:
        model: float or Brevitas network whose last layer is linear with a bias; changed in place.
        decoy_class: as in the loss's settings; None: the last output, a reject output.
        val: (N, C, H, W) uint8 images and (N,) int64 labels; not test data.
        floor: accuracy to keep, a fraction of 1. Where none of the values keeps it, the most
            accurate one is taken.

    Returns:
        The change of the bias.

    Raises:
        InputError: the model does not end in a linear layer with a bias for that class.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.zeros(5, 1, 2, 2).byte(), torch.zeros(5).long()
        >>> balance_reject_class(net, 0, (images, labels), floor=0.9)
        4.0
    """
    bias = _last_linear(model)[1].bias
    if decoy_class is not None and not 0 <= decoy_class < len(bias):
        raise InputError(
            f"the reject class cannot be balanced: the network's last layer has no bias for class "
            f"{decoy_class}. Take a network that ends in a linear layer with a bias."
        )
    at, steps = (-1, _MORE_STEPS) if decoy_class is None else (decoy_class, _STEPS)
    images, labels = val
    logits = logits_of(model, images)
    before = logits[:, at].clone()
    right = []
    for step in steps:
        logits[:, at] = before + step
        right.append(int((logits.argmax(dim=1) == labels).sum()))
    kept = [i for i, count in enumerate(right) if count >= floor * len(labels)]
    best = kept[-1] if kept else right.index(max(right))
    with torch.no_grad():
        bias[at] += steps[best]
    return float(steps[best])


def balanced_row(
    model: nn.Module, decoy_class: int | None, val: Data, floor: float, last: Row
) -> Row:
    """Balance the reject class; returns the last epoch's row with accuracy and shift after it."""
    shift = balance_reject_class(model, decoy_class, val, floor)
    return last | {"val_accuracy": accuracy(model, *val), "reject_shift": shift}
