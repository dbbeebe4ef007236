import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction import SurrogateTraining, TorchPredictor, build_surrogate
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.surrogates.training import (
    cutmix,
    mixup,
    soft_cross_entropy,
    train_surrogate,
)
from divqat_brevitas.training.kernels import random_flip, random_shift


def problem(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brighter half names the class."""
    rng = np.random.default_rng(0)
    images = rng.random((count, 1, 8, 8), np.float32) * np.float32(0.5)
    labels = rng.integers(0, 2, count)
    images[labels == 0, :, :4] += np.float32(0.4)
    images[labels == 1, :, 4:] += np.float32(0.4)
    return images, np.eye(2, dtype=np.float32)[labels]


def mlp(seed: int = 0) -> nn.Module:
    return build_surrogate("mlp", (1, 8, 8), 2, seed)


def test_loss_on_one_hot_targets_is_cross_entropy() -> None:
    logits, labels = (
        torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
        [0, 1, 2, 3, 0, 1],
    )
    hard = soft_cross_entropy(logits, torch.eye(4)[labels])
    # float32, the same sum in another order
    torch.testing.assert_close(
        hard, F.cross_entropy(logits, torch.tensor(labels)), rtol=1e-6, atol=0
    )


def test_loss_is_least_at_the_targets() -> None:
    targets = torch.tensor([[0.5, 0.3, 0.2]])
    at = soft_cross_entropy(targets.log(), targets)
    assert at < soft_cross_entropy(torch.zeros(1, 3), targets)
    entropy = -(targets * targets.log()).sum()
    torch.testing.assert_close(at, entropy, rtol=1e-6, atol=0)  # float32 rounding


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_learns_and_reports(schedule: str) -> None:
    images, targets = problem()
    model, seen = mlp(), []
    history = train_surrogate(
        model,
        images,
        targets,
        epochs=4,
        seed=0,
        settings=SurrogateTraining(schedule=schedule),
        on_epoch=seen.append,
    )
    assert history == seen
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["loss"] < history[0]["loss"]
    assert not model.training
    fresh, labels = problem(400)[0][300:], problem(400)[1][300:].argmax(axis=1)
    assert (TorchPredictor(model).predict(fresh).argmax(axis=1) == labels).mean() > 0.95


def test_same_seed_same_weights_and_global_state_untouched() -> None:
    images, targets = problem()
    states = []
    for global_seed, seed in ((1, 7), (2, 7), (2, 8)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        model = mlp()
        train_surrogate(
            model, images, targets, epochs=2, seed=seed, settings=SurrogateTraining(shift=1)
        )
        assert torch.equal(torch.get_rng_state(), before)
        states.append({k: v.numpy() for k, v in model.state_dict().items()})
    assert all(np.array_equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not np.array_equal(states[0][k], states[2][k]) for k in states[0])


def test_keeps_its_best_heldout_epoch() -> None:
    # Random responses cannot be learned: held-out agreement only jumps about.
    rng = np.random.default_rng(3)
    images = rng.random((400, 1, 8, 8), np.float32)
    targets = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 400)]
    model = build_surrogate("mlp", (1, 8, 8), 4, 0)
    states: list[dict[str, torch.Tensor]] = []

    def keep(_: dict[str, float]) -> None:
        states.append({k: v.clone() for k, v in model.state_dict().items()})

    settings = SurrogateTraining(holdout=0.1)
    history = train_surrogate(
        model, images, targets, epochs=8, seed=1, settings=settings, on_epoch=keep
    )
    agreements = [row["heldout_agreement"] for row in history]
    best = max(range(8), key=lambda i: (agreements[i], i))
    assert best != 7  # else the test would not tell the best epoch from the last
    assert all(torch.equal(v, states[best][k]) for k, v in model.state_dict().items())


def test_patience_stops_early() -> None:
    rng = np.random.default_rng(3)
    images = rng.random((400, 1, 8, 8), np.float32)
    targets = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 400)]
    model = build_surrogate("mlp", (1, 8, 8), 4, 0)
    settings = SurrogateTraining(patience=2, holdout=0.1)
    history = train_surrogate(model, images, targets, epochs=50, seed=1, settings=settings)
    assert len(history) < 50
    agreements = [row["heldout_agreement"] for row in history]
    assert max(agreements) > max(agreements[-2:])


def test_few_answers_hold_nothing_out() -> None:
    def fields(count: int, holdout: float) -> set[str]:
        images, targets = problem(count)
        settings = SurrogateTraining(holdout=holdout)
        return set(train_surrogate(mlp(), images, targets, epochs=1, seed=0, settings=settings)[0])

    assert fields(190, 0.1) == {"epoch", "loss"}  # a tenth is 19
    assert fields(200, 0.1) == {"epoch", "loss", "heldout_agreement"}
    assert fields(200, 0.0) == {"epoch", "loss"}


def test_a_batch_of_one_left_over_does_not_break_batch_norm() -> None:
    images, targets = problem(65)
    settings = SurrogateTraining(batch_size=64)
    history = train_surrogate(mlp(), images, targets, epochs=1, seed=0, settings=settings)
    assert np.isfinite(history[0]["loss"])


def test_answers_without_mass_are_left_out() -> None:
    images, targets = problem(100)
    marked = np.concatenate([images, np.ones_like(images)])
    padded = np.concatenate([targets, np.zeros_like(targets)])
    a, b = mlp(), mlp()
    train_surrogate(a, marked, padded, epochs=1, seed=0)
    train_surrogate(b, images, targets, epochs=1, seed=0)
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    with pytest.raises(InputError, match="nothing to train on"):
        train_surrogate(mlp(), images, np.zeros_like(targets), epochs=1, seed=0)


def test_divergence_is_named() -> None:
    images, targets = problem(100)

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :2] * self.weight * torch.nan

    with pytest.raises(CheckFailedError, match="diverged in epoch 1"):
        train_surrogate(Broken(), images, targets, epochs=1, seed=0)


def test_shift_moves_each_image_by_whole_pixels() -> None:
    images = torch.zeros(200, 2, 8, 8)
    images[:, :, 4, 4] = 1
    moved = random_shift(images, 2, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert torch.equal(moved[:, 0], moved[:, 1])  # channels move together
    places = {tuple(place) for place in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.full((200,), 2.0))
    assert random_shift(images, 0, torch.Generator()) is images


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 1},
        {"learning_rate": 0},
        {"momentum": 1},
        {"holdout": 0.6},
        {"shift": -1},
        {"mixup": -0.1},
        {"cutmix": float("nan")},
        {"patience": 0, "holdout": 0.1},
        {"patience": 3},
        {"clip_norm": 0},
        {"weight_decay": -1},
        {"schedule": "cosin"},
    ],
)
def test_settings_out_of_range(bad: dict) -> None:
    with pytest.raises(InputError, match=r"must be|did you mean|patience needs"):
        SurrogateTraining(**bad)


def test_bad_calls() -> None:
    images, targets = problem(10)
    with pytest.raises(InputError, match="at least 2"):
        train_surrogate(mlp(), images[:1], targets[:1], epochs=1, seed=0)
    with pytest.raises(InputError, match="one response an image"):
        train_surrogate(mlp(), images, targets[:5], epochs=1, seed=0)
    with pytest.raises(InputError, match="epochs"):
        train_surrogate(mlp(), images, targets, epochs=0, seed=0)


def test_flip_mirrors_half_of_the_images() -> None:
    images = torch.arange(8.0).repeat(400, 1, 8, 1)
    flipped = random_flip(images, torch.Generator().manual_seed(0))
    mirrored = flipped[:, 0, 0, 0] == 7
    assert 150 < int(mirrored.sum()) < 250
    assert torch.equal(flipped[mirrored], images[mirrored].flip(3))
    assert torch.equal(flipped[~mirrored], images[~mirrored])


def marked(count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Constant images, each of its own class."""
    images = torch.arange(float(count))[:, None, None, None].expand(count, 1, 8, 10)
    return images.clone(), torch.eye(count)


def test_mixup_blends_images_and_answers_alike() -> None:
    images, targets = marked()
    mixed, responses = mixup(images, targets, 0.4, np.random.default_rng(0))
    # Linear in both: the blended class index is the blended pixel. Float32 sums.
    expected = (responses @ torch.arange(50.0))[:, None, None, None].expand_as(mixed)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(responses.sum(dim=1), torch.ones(50), rtol=1e-6, atol=0)
    assert not torch.equal(mixed, images)


def test_cutmix_mixes_answers_by_area() -> None:
    images, targets = marked()
    rng = np.random.default_rng(0)
    for _ in range(20):
        mixed, responses = cutmix(images, targets, 1.0, rng)
        own = (mixed == images).float().mean(dim=(1, 2, 3))
        partnered = responses.diagonal() < 1
        # Float32 of a quotient of counts
        torch.testing.assert_close(responses.diagonal()[partnered], own[partnered])
        pixels = mixed.mean(dim=(1, 2, 3))
        torch.testing.assert_close(responses @ torch.arange(50.0), pixels, rtol=1e-4, atol=1e-4)
    assert torch.equal(images, marked()[0])


@pytest.mark.parametrize(
    "settings", [{"flip": True}, {"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}]
)
def test_augmentations_train_and_repeat(settings: dict) -> None:
    images, targets = problem()

    def weights(**more: object) -> dict[str, torch.Tensor]:
        model = mlp()
        train_surrogate(
            model, images, targets, epochs=3, seed=1, settings=SurrogateTraining(**more)
        )
        predicted = TorchPredictor(model).predict(images).argmax(axis=1)
        assert (predicted == targets.argmax(axis=1)).mean() > 0.9
        return model.state_dict()

    first, again, without = weights(**settings), weights(**settings), weights()
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert any(not torch.equal(v, without[k]) for k, v in first.items())


def test_an_objective_of_its_own() -> None:
    images, targets = problem()

    def inverted(outputs: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
        return soft_cross_entropy(outputs.float(), 1 - responses)

    model = mlp()
    train_surrogate(model, images, targets, epochs=3, seed=0, objective=inverted)
    predicted = TorchPredictor(model).predict(images).argmax(axis=1)
    assert (predicted == targets.argmax(axis=1)).mean() < 0.1


def test_bfloat16_trains_to_the_same_accuracy() -> None:
    images, targets = problem()
    for precision in ("float32", "bfloat16"):
        model = build_surrogate("compact", (1, 8, 8), 2, 0)
        settings = SurrogateTraining(precision=precision)
        train_surrogate(model, images, targets, epochs=3, seed=0, settings=settings)
        predicted = TorchPredictor(model).predict(images).argmax(axis=1)
        assert (predicted == targets.argmax(axis=1)).mean() > 0.97


@pytest.mark.parametrize("surrogate", ["mlp", "compact"])
def test_pixels_as_bytes_train_the_same_network_bit_for_bit(surrogate: str) -> None:
    images, targets = problem()
    pixels = np.round(images * 255).astype(np.uint8)
    models = [build_surrogate(surrogate, (1, 8, 8), 2, 0) for _ in range(2)]
    histories = [
        train_surrogate(
            model, given, targets, epochs=2, seed=0, settings=SurrogateTraining(holdout=0.2)
        )
        for model, given in zip(models, (pixels, to_float(pixels)), strict=True)
    ]

    assert histories[0] == histories[1]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
