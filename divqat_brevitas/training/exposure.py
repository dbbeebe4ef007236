"""The loss with the images that its decoy is trained on."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from divqat_brevitas.data.arrays import Shape
from divqat_brevitas.data.pools import query_pool
from divqat_brevitas.quant.loss import DivQATLoss, loss_settings

_COUNT = 20_000


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
    """Always the same images: what a network is trained on has no seed of a thief's."""
    return torch.tensor(query_pool(pool, dataset, _COUNT, 0, root, shape).images)
