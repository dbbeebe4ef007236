"""A small victim on scikit-learn's 8×8 digits, trained once a session, and an attacker's pool."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True)
class Digits:
    model: nn.Module
    pool: NDArray[np.uint8]
    pool_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    labels = labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    train, pool, test = order[:700], order[700:1400], order[1400:]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)
        )
    x, y = torch.from_numpy(images[train] / np.float32(255)), torch.from_numpy(labels[train])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(15):
        for part in torch.randperm(len(x), generator=generator).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    model.eval()
    return Digits(model, images[pool], labels[pool], images[test] / np.float32(255), labels[test])


class Spy:
    """A predictor that remembers what it was asked and answers with given logits."""

    def __init__(self, classes: int = 3, logits: NDArray[np.float32] | None = None) -> None:
        self.classes = classes
        self.logits = logits
        self.asked: list[NDArray[np.float32]] = []

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        self.asked.append(images)
        if self.logits is not None:
            return self.logits
        # Image-dependent, distinct logits.
        flat = images.reshape(len(images), -1)[:, : self.classes]
        return (flat * np.arange(1, self.classes + 1) * 3).astype(np.float32)


@pytest.fixture
def spy() -> Spy:
    return Spy()


@pytest.fixture
def make_spy() -> type[Spy]:
    return Spy


def random_images(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, 1, 8, 8), np.float32)


@pytest.fixture
def images() -> NDArray[np.float32]:
    return random_images(10)
