"""The class that costs least as a decoy: where a network sends what it does not know."""

import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.training import find_reject_class

IMAGES = torch.randint(0, 256, (90, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()


class Fixed(nn.Module):
    """Sends images whose mean lies above a bound to one class, others to another."""

    def __init__(self, bound: float, above: int, below: int) -> None:
        super().__init__()
        self.bound, self.above, self.below = bound, above, below

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        to = torch.where(x.mean((1, 2, 3)) > self.bound, self.above, self.below)
        return nn.functional.one_hot(to, 5).float()


def test_it_is_where_most_outliers_go() -> None:
    assert find_reject_class(Fixed(-1.0, 3, 1), IMAGES) == 3
    assert find_reject_class(Fixed(2.0, 3, 1), IMAGES) == 1


class Known(nn.Module):
    """Sends the images it knows to class 4, and all others to class 2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = {image.numpy().tobytes() for image in IMAGES.float() / 255}
        to = torch.tensor([4 if image.numpy().tobytes() in known else 2 for image in x])
        return nn.functional.one_hot(to, 5).float()


def test_it_asks_about_outliers_not_about_the_images() -> None:
    assert Known()(IMAGES.float() / 255).argmax(1).unique().tolist() == [4]
    assert find_reject_class(Known(), IMAGES) == 2


def test_the_same_seed_gives_the_same_class_and_the_mode_is_kept() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 6)).train()
    assert find_reject_class(net, IMAGES, seed=1) == find_reject_class(net, IMAGES, seed=1)
    assert net.training


def test_no_images() -> None:
    with pytest.raises(InputError, match="needs training images"):
        find_reject_class(nn.Identity(), IMAGES[:0])
