from dataclasses import dataclass

import numpy as np
import pytest
import torch

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    KnockoffNets,
    MixMatch,
    PlainLearner,
    SemiSupervised,
    Victim,
    accuracy,
)
from divqat_brevitas.extraction.attacks.semi import _mix_up, sharpen

QUICK = PlainLearner(surrogate="mlp", epochs=2)


@pytest.mark.slow  # trains clones
def test_unasked_images_beat_knockoff_on_the_same_answers(digits) -> None:
    """Jagielski et al., table 3: semi-supervised training gains most where responses are few."""
    semi, knockoff = [], []
    for seed in (0, 1):
        learner = PlainLearner(epochs=20)
        stolen = SemiSupervised(learner, seed).run(Victim(digits.model, budget=60), digits.pool)
        # 640 unasked images in batches of 64: ten steps an epoch. KnockoffNets has one step an
        # epoch, so it gets as many epochs as the other has steps.
        plain = KnockoffNets(epochs=200, seed=seed).run(
            Victim(digits.model, budget=60), digits.pool
        )
        assert np.array_equal(stolen.indices, plain.indices)
        semi.append(accuracy(stolen.clone, digits.test, digits.test_labels))
        knockoff.append(accuracy(plain.clone, digits.test, digits.test_labels))
    assert np.mean(knockoff) > 0.8
    assert np.mean(semi) > np.mean(knockoff) + 0.02


def test_unasked_images_matter_but_are_not_asked(spy, digits) -> None:
    first = SemiSupervised(QUICK).run(Victim(spy, budget=30), digits.pool[:120])
    asked = np.concatenate(spy.asked)
    changed = digits.pool[:120].copy()
    rest = np.setdiff1d(np.arange(120), first.indices)
    changed[rest] = 255 - changed[rest]
    second = SemiSupervised(QUICK).run(Victim(spy, budget=30), changed)
    assert np.array_equal(np.concatenate(spy.asked)[len(asked) :], asked)
    a, b = (next(r.clone.parameters()) for r in (first, second))
    assert not torch.equal(a, b)
    assert first.settings["unlabelled_images"] == 90


def test_history_has_the_parts_of_the_loss(digits) -> None:
    seen = []
    attack = SemiSupervised(QUICK, mixmatch=MixMatch(weight=10))
    result = attack.run(Victim(digits.model, budget=30), digits.pool[:158], on_epoch=seen.append)
    assert seen == result.history
    assert [row["epoch"] for row in seen] == [1, 2]
    # 128 unasked images are two steps an epoch; the weight rises 1/4, 2/4, 3/4, 1.
    for row in seen:
        assert row["labelled"] < row["loss"] < row["labelled"] + 10 * 2 * row["unlabelled"]


def test_refuses_a_learner_with_a_training_of_its_own() -> None:
    @dataclass(frozen=True)
    class Other:
        name: str = "skeptical"

    with pytest.raises(InputError, match="cannot take the learner 'skeptical'"):
        SemiSupervised(Other())


def test_sharpening() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    sharp = sharpen(p, 0.5)
    expected = torch.tensor([[0.25, 0.09, 0.04]]) / 0.38
    assert torch.allclose(sharp[:1], expected)
    assert torch.allclose(sharp[1], p[1])
    assert torch.allclose(sharpen(p, 1.0), p)


def test_mixing_keeps_each_row_nearer_to_itself() -> None:
    rng = np.random.default_rng(0)
    y = torch.eye(50)
    x = torch.arange(50.0)[:, None, None, None].expand(50, 1, 8, 8)
    mixed, labels = _mix_up(x, y, 0.75, rng)
    assert (labels.diagonal() >= 0.5).all()
    assert torch.allclose(labels.sum(dim=1), torch.ones(50))
    # Images are mixed by the very weights of their labels.
    assert torch.allclose(mixed[:, 0, 0, 0], labels @ torch.arange(50.0), atol=1e-4)  # up to 49


@pytest.mark.parametrize(
    "settings",
    [
        {"augmentations": 0},
        {"temperature": 0.0},
        {"alpha": 0.0},
        {"weight": -1.0},
        {"shift": -1},
        {"most_steps": 0},
    ],
)
def test_settings_refuse(settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        MixMatch(**settings)
