import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import ActiveThief, PlainLearner, Substitute, Victim
from divqat_brevitas.extraction.attacks.active import (
    deepfool_distance,
    entropy,
    greedy_k_center,
)

QUICK = PlainLearner(surrogate="mlp", epochs=1)


def test_entropy() -> None:
    rows = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], np.float32)
    # float32 probabilities
    assert entropy(rows) == pytest.approx([0, np.log(3), np.log(2)], abs=1e-6)


def test_k_center_is_the_greedy_choice() -> None:
    rng = np.random.default_rng(0)
    points, centers = rng.random((40, 3)), rng.random((4, 3))
    covered, expected = list(centers), []
    for _ in range(12):
        nearest = [min(((p - c) ** 2).sum() for c in covered) for p in points]
        expected.append(int(np.argmax(nearest)))
        covered.append(points[expected[-1]])
    assert greedy_k_center(points, centers, 12).tolist() == expected


def test_k_center_picks_distinct_images_even_if_all_look_alike() -> None:
    alike = np.full((20, 4), 0.25, np.float32)
    chosen = greedy_k_center(alike, alike[:3], 20)
    assert sorted(chosen.tolist()) == list(range(20))


def test_deepfool_finds_the_distance_to_a_linear_boundary() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    weight = torch.randn((5, 64), generator=generator)
    model[1].weight.data.copy_(weight)
    images = np.random.default_rng(1).random((30, 1, 8, 8), np.float32)
    logits = model(torch.from_numpy(images)).detach().double().numpy()
    top = logits.argmax(axis=1)
    w = weight.double().numpy()
    exact = [
        min(
            (logits[i, top[i]] - logits[i, j]) / np.linalg.norm(w[top[i]] - w[j])
            for j in range(5)
            if j != top[i]
        )
        for i in range(30)
    ]
    found = deepfool_distance(model, images, rivals=4)
    # The overshoot of 2 %, and 1e-4 of a logit that carries it over the boundary.
    assert np.allclose(found, np.array(exact) * 1.02, rtol=0, atol=1e-4)


def test_deepfool_of_a_flat_clone_is_finite() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    nn.init.zeros_(model[1].weight)
    images = np.random.default_rng(1).random((3, 1, 8, 8), np.float32)
    assert np.isfinite(deepfool_distance(model, images)).all()


@pytest.mark.parametrize("selection", ["k-center", "entropy", "dfal+k-center"])
def test_rounds_and_distinct_images(selection: str, digits) -> None:
    attack = ActiveThief(
        QUICK,
        selection=selection,
        rounds=4,
        substitute=Substitute(surrogate="mlp", steps=40),
    )
    victim = Victim(digits.model, budget=103)
    result = attack.run(victim, digits.pool)
    assert [row.images for row in victim.ledger] == [10, 24, 23, 23, 23]
    assert len(np.unique(result.indices)) == 103
    later = result.rounds[1:]
    # All of them prefer images that the substitute is unsure of.
    assert np.mean([r["entropy"] for r in later]) > np.mean([r["pool"] for r in later])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selection": "kcenter"}, "did you mean 'k-center'"),
        ({"initial": 0.0}, "initial"),
        ({"rounds": 0}, "rounds"),
        ({"deepfool_images": 0}, "deepfool_images"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refuses(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ActiveThief(**settings)
