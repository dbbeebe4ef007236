"""A loss with its pool of outliers, drawn in the victim's shape."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from divqat_brevitas import freeze_reference
from divqat_brevitas.data.cache import staging, store
from divqat_brevitas.errors import InputError
from divqat_brevitas.training import loss_for


def reference(pixels: int) -> nn.Module:
    return freeze_reference(nn.Sequential(nn.Flatten(), nn.Linear(pixels, 10)))


@pytest.mark.slow  # trains
@pytest.mark.parametrize(("dataset", "shape"), [("cifar10", None), ("digits", (3, 32, 32))])
def test_a_pool_is_drawn_in_the_victims_shape_and_colours(
    tmp_path: Path, dataset: str, shape: tuple[int, int, int] | None
) -> None:
    for name, value in (("landscapes", 40), ("backgrounds", 200)):
        picture = tmp_path / f"{name}.png"
        image = Image.new("RGB", (90, 80), (value, 0, 0))
        image.paste((value, 255, 0), (0, 0, 45, 40))  # a flat patch is drawn again
        image.save(picture)
        with staging(tmp_path, name) as work:
            store(tmp_path, name, {"p.png": picture.read_bytes()}, work)
    net = reference(3 * 32 * 32)
    loss = loss_for(net, "decoy-photos", dataset, tmp_path, shape, ood_share=1.0)
    images = torch.zeros(80, 3, 32, 32)
    given = loss.with_outliers(images, torch.Generator().manual_seed(2))[80:]
    assert given.shape == (20, 3, 32, 32)
    # Recoloured or not, the pictures' two reds are among the pixels.
    shades = {round(255 * v) % 255 for v in given.unique().tolist()}
    assert shades & {40, 200, 255 - 40, 255 - 200}


def test_without_a_pool_nothing_is_needed(tmp_path: Path) -> None:
    loss = loss_for(reference(64), "decoy", "digits", tmp_path, ood_weight=0.2)
    assert loss.settings.ood_weight == 0.2
    loss_for(reference(64), "decoy-photos", "digits", tmp_path, ood_weight=0.0)
    with pytest.raises(InputError, match="divqat data fetch landscapes"):
        loss_for(reference(64), "decoy-photos", "digits", tmp_path)
