"""Active, semi-supervised and averaged attacks."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    ActiveThief,
    KnockoffNets,
    MixMatch,
    PlainLearner,
    SemiSupervised,
    Substitute,
    TransferSet,
    Victim,
    accuracy,
)
from divqat_brevitas.extraction.attacks.active import deepfool_distance, entropy, greedy_k_center
from divqat_brevitas.extraction.attacks.knockoff import AveragedQueries
from divqat_brevitas.extraction.attacks.semi import _mix_up, sharpen

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
        QUICK, selection=selection, rounds=4, substitute=Substitute(surrogate="mlp", steps=40)
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


TWO_EPOCHS = PlainLearner(surrogate="mlp", epochs=2)


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
    first = SemiSupervised(TWO_EPOCHS).run(Victim(spy, budget=30), digits.pool[:120])
    asked = np.concatenate(spy.asked)
    changed = digits.pool[:120].copy()
    rest = np.setdiff1d(np.arange(120), first.indices)
    changed[rest] = 255 - changed[rest]
    second = SemiSupervised(TWO_EPOCHS).run(Victim(spy, budget=30), changed)
    assert np.array_equal(np.concatenate(spy.asked)[len(asked) :], asked)
    a, b = (next(r.clone.parameters()) for r in (first, second))
    assert not torch.equal(a, b)
    assert first.settings["unlabelled_images"] == 90


def test_history_has_the_parts_of_the_loss(digits) -> None:
    seen = []
    attack = SemiSupervised(TWO_EPOCHS, mixmatch=MixMatch(weight=10))
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


LEARNER = PlainLearner(surrogate="mlp", epochs=1)


class KeepingLearner:
    """Shows what the attack hands over."""

    name, surrogate, settings = "keeping", "mlp", {"a": 1}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch=None):
        self.transfer_set = transfer_set
        return LEARNER.learn(transfer_set, seed, on_epoch)


class NoisyDefence:
    """A randomised defence: every response drawn anew around the clean one."""

    name = "noisy"
    settings: dict[str, float] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def perturb(self, images, probabilities):
        noise = self.rng.dirichlet(np.ones(10), len(probabilities))
        return (0.3 * probabilities + 0.7 * noise).astype(np.float32)


@pytest.fixture
def pool() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (150, 1, 8, 8), np.uint8)


def test_versions_fit_the_budget_and_are_averaged(make_spy, pool) -> None:
    spy, learner = make_spy(), KeepingLearner()
    victim = Victim(spy, budget=100)
    result = AveragedQueries(learner=learner, seed=1).run(victim, pool)
    assert result.queries_used == victim.queries_used == 99
    asked = np.concatenate(spy.asked).reshape(33, 3, 1, 8, 8)
    chosen = pool[result.indices.reshape(33, 3)]
    assert np.array_equal(asked[:, 0], chosen[:, 0] / np.float32(255))
    assert len(np.unique(result.indices)) == 33
    assert np.array_equal(chosen[:, 0], chosen[:, 2])
    assert not np.array_equal(asked[:, 1], asked[:, 2])
    assert all(len(np.unique(three, axis=0)) == 3 for three in asked)
    # What was learnt from: the images themselves with the means of their responses.
    assert np.array_equal(learner.transfer_set.images, chosen[:, 0])
    responses = Victim(make_spy()).query(asked.reshape(99, 1, 8, 8)).reshape(33, 3, -1)
    np.testing.assert_allclose(
        learner.transfer_set.responses, responses.mean(axis=1), rtol=1e-6
    )  # float32
    settings = json.loads(json.dumps(result.settings))
    assert (settings["attack"], settings["copies"]) == ("knockoff-averaged", 3)
    assert settings["learner"]["name"] == "keeping"


def test_averages_out_a_random_defence(digits) -> None:
    def wrong(copies: int) -> float:
        learner = KeepingLearner()
        victim = Victim(digits.model, budget=200 * copies, defence=NoisyDefence())
        attack = AveragedQueries(learner=learner, copies=copies, shift=0, noise=0.01)
        result = attack.run(victim, digits.pool)
        images = digits.pool[result.indices[::copies]] / np.float32(255)
        clean = Victim(digits.model).query(images).argmax(axis=1)
        return float((learner.transfer_set.responses.argmax(axis=1) != clean).mean())

    assert wrong(copies=8) < 0.5 * wrong(copies=1)


def test_refusals_cost_no_query(spy, pool) -> None:
    victim = Victim(spy, budget=5)
    with pytest.raises(InputError, match="5 queries in 3 copies"):
        AveragedQueries(learner=LEARNER).run(victim, pool)
    assert victim.queries_used == 0
    for bad in ({"copies": 0}, {"shift": -1}, {"noise": float("nan")}, {"seed": -1}):
        with pytest.raises(InputError, match="must be"):
            AveragedQueries(**bad)
