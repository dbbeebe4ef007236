"""Synthetic outliers, and the decoy term that trains on them."""

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas import DivQATLoss, freeze_reference
from divqat_brevitas.errors import InputError
from divqat_brevitas.quant.loss import reject_loss
from divqat_brevitas.quant.outliers import FAMILIES, KINDS, synthetic_outliers
from divqat_brevitas.training import TrainSettings, train


def batch(shape: tuple[int, int, int] = (3, 32, 32), count: int = 20) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 21, 17)])
def test_every_family_keeps_shape_and_varies(name: str, shape: tuple[int, int, int]) -> None:
    images = batch(shape, 6)
    made = FAMILIES[name](images, generator()).clamp(0, 1)
    assert made.shape == images.shape
    assert torch.isfinite(made).all()
    assert len({image.numpy().tobytes() for image in made}) == 6
    assert not any((made == image).flatten(1).all(1).any() for image in images)


def test_outliers_repeat_with_the_seed_and_leave_torch_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (synthetic_outliers(batch(), generator(s)) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize("count", [1, 3, 9, 20])
def test_as_many_outliers_as_images(count: int) -> None:
    assert len(synthetic_outliers(batch(count=count), generator())) == count


def test_decoy_loss_is_the_cross_entropy_to_the_decoy() -> None:
    logits = torch.randn(5, 4, generator=generator())
    target = torch.tensor([0.1, 0.1, 0.7, 0.1]).expand(5, 4)
    wanted = nn.functional.cross_entropy(logits, target)
    # Equal up to the order of float32 sums.
    assert reject_loss(logits, 2, 0.7).item() == pytest.approx(wanted.item(), rel=1e-6)
    with pytest.raises(InputError, match="classes 0 to 3"):
        reject_loss(logits, 4, 0.7)


def criterion(**changes: float) -> DivQATLoss:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    return DivQATLoss(freeze_reference(net), "decoy", **changes)


def test_outliers_follow_the_images() -> None:
    loss = criterion(ood_fraction=0.25)
    images = batch((1, 8, 8))
    extended = loss.with_outliers(images, generator())
    assert extended.shape == (25, 1, 8, 8)
    assert torch.equal(extended[:20], images)


def test_without_weight_there_are_no_outliers() -> None:
    loss = criterion(ood_weight=0.0)
    images = batch((1, 8, 8))
    assert loss.with_outliers(images, generator()) is images


def test_total_is_the_weighted_sum_and_warms_up() -> None:
    loss = criterion(ood_weight=0.5, warmup=0.5)
    images, labels = batch((1, 8, 8)), torch.arange(20) % 4
    logits = torch.randn(26, 4, generator=generator())
    extended = torch.cat([images, images[:6]])
    parts = nn.functional.cross_entropy(logits[:20], labels), reject_loss(logits[20:], 0, 1.0)
    for progress, weight in ((0.25, 0.25), (1.0, 0.5)):
        loss.progress = progress
        total = loss(logits, labels, inputs=extended)
        assert total.item() == pytest.approx((parts[0] + weight * parts[1]).item(), rel=1e-6)
    assert set(loss.terms) == {"cross_entropy", "divergence", "weight", "reject", "total"}


def test_guard_weakens_the_decoy_too() -> None:
    loss = criterion()
    loss.scale_weight(0.5)
    assert loss.ood_weight == 0.15


def test_fewer_logits_than_labels_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(3, 4\) for 4 images"):
        criterion()(torch.zeros(3, 4), torch.zeros(4, dtype=torch.long), batch((1, 8, 8), 4))


@pytest.mark.parametrize("changes", [{"ood_fraction": 0}, {"decoy_mass": 1.5}, {"ood_weight": -1}])
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        criterion(**changes)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from divqat_brevitas.data import load

    images, labels = load("digits", "train")
    return torch.tensor(images), torch.tensor(labels)


@pytest.mark.slow  # trains
def test_training_gives_outliers_the_decoy_and_keeps_the_images() -> None:
    from divqat_brevitas.data import query_pool
    from divqat_brevitas.models import build_model
    from divqat_brevitas.training import accuracy, logits_of

    data = digits()
    settings = TrainSettings(epochs=12, batch_size=50)
    results = {}
    for weight in (0.0, 1.0):
        net = build_model("digits-cnn", (1, 8, 8), 10)
        loss = DivQATLoss(freeze_reference(net), "decoy", ood_weight=weight, decoy_class=3)
        train(net, loss, train=data, val=data, settings=settings)
        pool = torch.tensor(query_pool("noise", "digits", 300, seed=0).images)
        answers = logits_of(net, pool).argmax(1).numpy()
        results[weight] = accuracy(net, *data), float(np.mean(answers == 3))
    assert results[1.0][0] > 0.95
    # The pool is of another generator than the outliers: most, not all, get the decoy.
    assert results[1.0][1] > 0.8
    assert results[1.0][1] > results[0.0][1] + 0.3


@pytest.mark.parametrize("changes", [{}, {"ood_term": "energy"}, {"weight": 0.1}])
def test_outliers_of_a_reject_output_are_trained_to_it(changes: dict[str, float | str]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    loss = DivQATLoss(freeze_reference(net), "reject", **changes)
    assert loss.settings.reject_output
    images = loss.with_outliers(batch((1, 8, 8), 8), generator())
    labels = torch.arange(8) % 4
    logits = torch.zeros(12, 5)
    logits[:8].scatter_(1, labels[:, None], 20.0)  # sure of the labels
    logits[8:, 4] = 20.0  # and of the reject output
    loss(logits, labels, inputs=images)
    right = loss.terms["reject"].item()
    # The largest is what log-sum-exp adds to 4 equal logits, which no margin of 20 shows.
    assert right == pytest.approx(0, abs=1e-6)
    logits[8:] = torch.roll(logits[8:], 1, dims=1)  # sure of class 0
    loss(logits, labels, inputs=images)
    assert loss.terms["reject"].item() > 15
    if "weight" in changes:  # of the classes that the reference has
        assert loss.terms["divergence"].item() > 0


def test_energy_is_of_a_reject_output() -> None:
    with pytest.raises(InputError, match='take the preset "reject"'):
        DivQATLoss(freeze_reference(nn.Linear(4, 2)), "decoy", ood_term="energy")


def test_textures_hold_no_piece_of_a_training_image() -> None:
    """White images give textures all the same; what is torn from them would be white."""
    white = torch.ones(40, 3, 32, 32)
    made = synthetic_outliers(white, generator(), "textures")
    assert (made.flatten(1).std(1) > 0.01).float().mean() > 0.7  # a spectrum of white is flat
    assert {"jigsaw", "collage"} <= set(KINDS["all"]) - set(KINDS["textures"])
    assert set(KINDS["textures"]) < set(FAMILIES) == set(KINDS["all"])


def photos(**changes: float | str) -> DivQATLoss:
    """A loss whose own outliers are all of one grey."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    given = torch.full((3, 1, 8, 8), 100, dtype=torch.uint8)
    return DivQATLoss(freeze_reference(net), "decoy-photos", outliers=given, **changes)


@pytest.mark.parametrize(("share", "given"), [(0.67, 7), (1.0, 10), (0.01, 0)])
def test_given_outliers_stand_beside_synthetic_ones(share: float, given: int) -> None:
    images = batch((1, 8, 8), 40)
    extended = photos(ood_share=share).with_outliers(images, generator())
    assert len(extended) == 40 + 10
    flat = [image for image in extended[40:] if image.std() == 0]
    assert len(flat) == given
    again = photos(ood_share=share).with_outliers(images, generator())
    assert torch.equal(again, extended)
    if given:
        shades = {round(float(image[0, 0, 0]), 4) for image in flat}
        assert len(shades) == 1  # as they are, or all recoloured alike


def test_a_pool_is_given_in_the_shape_and_type_of_images() -> None:
    reference = freeze_reference(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    with pytest.raises(InputError, match="pool 'backgrounds' and was given none"):
        DivQATLoss(reference, "decoy-photos")
    assert DivQATLoss(reference, "decoy-photos", ood_pool="").settings.ood_weight > 0
    unused = DivQATLoss(reference, "decoy-photos", ood_weight=0.0).settings
    assert (unused.ood_pool, unused.trained_pool) == ("backgrounds", "")
    for bad in (torch.zeros(2, 1, 8, 8), torch.zeros(0, 1, 8, 8).byte(), torch.zeros(8, 8).byte()):
        with pytest.raises(InputError, match=r"must be uint8 \(M, C, H, W\)"):
            DivQATLoss(reference, "decoy", outliers=bad)
    loss = DivQATLoss(reference, "decoy-photos", outliers=torch.zeros(2, 3, 8, 8).byte())
    with pytest.raises(InputError, match="give some of the same"):
        loss.with_outliers(batch((1, 8, 8)), generator())
    with pytest.raises(InputError, match="kind of outliers"):
        DivQATLoss(reference, "decoy", ood_families="texture")
