"""Random changes of training images, from explicit generators."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def random_shift(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Shift each image by its own number of pixels in [-shift, shift]; zeros fill the border."""
    if shift == 0:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (shift, shift, shift, shift)).permute(0, 2, 3, 1)
    offsets = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height))[:, :, None]
    columns = (offsets[1] + torch.arange(width))[:, None, :]
    return padded[torch.arange(count)[:, None, None], rows, columns].permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    flipped = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def mixup(
    images: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend the batch with itself in another order: Zhang et al., ICLR 2018, eq. (1).

    A batch has one weight, drawn from Beta(alpha, alpha), as in the authors' code.
    """
    weight = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(images)))
    return (
        weight * images + (1 - weight) * images[partners],
        weight * targets + (1 - weight) * targets[partners],
    )


def cutmix(
    images: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Paste a box of another image of the batch: Yun et al., ICCV 2019, sec. 3.

    The centre of the box is uniform, its sides are proportional to the root of a Beta(alpha, alpha)
    draw; targets mix by the area that it covers.
    """
    height, width = images.shape[2:]
    side = float(np.sqrt(1 - rng.beta(alpha, alpha)))
    top, bottom = _interval(int(rng.integers(height)), side * height, height)
    left, right = _interval(int(rng.integers(width)), side * width, width)
    partners = torch.from_numpy(rng.permutation(len(images)))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, weight * targets + (1 - weight) * targets[partners]


def _interval(centre: int, length: float, limit: int) -> tuple[int, int]:
    start = int(centre - length // 2)
    return max(start, 0), min(start + int(length), limit)
