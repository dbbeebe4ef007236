"""The decoy's bias after training: as high as accuracy allows."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from divqat_brevitas import freeze_reference
from divqat_brevitas.data.cache import staging, store
from divqat_brevitas.errors import InputError
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.training import (
    accuracy,
    add_reject_output,
    balance_reject_class,
    calibrate,
    find_reject_class,
    logits_of,
    loss_for,
)


def certain(margins: list[float]) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A network that is right by these margins over class 0, and its data, all of class 1."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    linear = net[1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0], [255.0]]))  # the pixel's value is the margin
        linear.bias.zero_()
    pixels = torch.tensor(margins).round().to(torch.uint8).view(-1, 1, 1, 1)
    return net, (pixels, torch.ones(len(margins), dtype=torch.int64))


@pytest.mark.parametrize(
    ("floor", "shift"),
    [
        (1.0, 0.95),  # the margin of 1 is kept: at a tie the lower class is the answer
        (0.75, 1.95),
        (0.5, 2.95),
        (0.0, 4.0),
    ],
)
def test_the_highest_bias_that_keeps_the_accuracy(floor: float, shift: float) -> None:
    net, val = certain([1, 2, 3, 9])
    assert balance_reject_class(net, 0, val, floor) == pytest.approx(shift, abs=1e-6)
    assert accuracy(net, *val) >= floor
    assert net[1].bias.tolist() == pytest.approx([shift, 0.0], abs=1e-6)  # type: ignore[index]


def test_a_decoy_that_cost_too_much_is_lowered() -> None:
    net, val = certain([1, 2, 3, 9])
    with torch.no_grad():
        net[1].bias[0] = 5.0  # type: ignore[index]
    assert accuracy(net, *val) == 0.25
    assert balance_reject_class(net, 0, val, 0.75) == pytest.approx(-3.05, abs=1e-6)
    assert accuracy(net, *val) == 0.75
    # Out of reach: as much as there is to get.
    with torch.no_grad():
        net[1].bias[0] = 6.0  # type: ignore[index]
    balance_reject_class(net, 0, val, 1.0)
    assert accuracy(net, *val) == 0.5


def test_only_the_decoy_of_a_quantized_network_moves() -> None:
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    val = images.to(torch.uint8), torch.arange(40) % 4
    net = quantize(build_model("digits-cnn", (1, 8, 8), 4), "w4a4")
    calibrate(net, val[0])
    before = logits_of(net, val[0])
    shift = balance_reject_class(net, 2, val, 0.0)
    after = logits_of(net, val[0])
    assert shift == 4.0
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])
    # Float logits, added in another order: 1e-4 is far above their rounding, far below the shift.
    assert (after[:, 2] - before[:, 2]).numpy() == pytest.approx(shift, abs=1e-4)


def test_a_reject_output_stands_behind_the_classes_and_takes_what_the_cost_allows() -> None:
    net, val = certain([1, 2, 3, 9])
    wider = add_reject_output(net)
    logits = logits_of(wider, val[0])
    assert torch.equal(logits[:, :2], logits_of(net, val[0]))
    assert logits[:, 2].tolist() == [-1.0] * 4
    # Up to the third image's margin. Float rounding decides that tie: one step of 0.05.
    shift = balance_reject_class(wider, None, val, 0.5)
    assert shift == pytest.approx(4.0, abs=0.051)
    assert (logits_of(wider, val[0]).argmax(1) == 2).tolist() == [True, True, False, False]
    assert balance_reject_class(wider, None, val, 0.0) == 8.0
    with pytest.raises(InputError, match="ends in a linear layer with a bias"):
        add_reject_output(nn.Sequential(nn.Flatten()))


@pytest.mark.parametrize(
    "net", [nn.Sequential(nn.Flatten()), nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))]
)
def test_a_network_without_such_a_bias_is_refused(net: nn.Module) -> None:
    val = torch.zeros(2, 1, 1, 1).byte(), torch.zeros(2).long()
    with pytest.raises(InputError, match="no bias for a reject class"):
        balance_reject_class(net, 0, val, 0.5)
    with pytest.raises(InputError, match="no bias for class 2"):
        balance_reject_class(certain([1])[0], 2, val, 0.5)


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
