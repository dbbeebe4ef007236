"""Adaptive Misinformation and the ensemble: defences that bring networks of their own."""

import numpy as np
import pytest
import torch

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TorchPredictor, accuracy, softmax
from divqat_brevitas.extraction.defences import (
    AdaptiveMisinformation,
    EnsembleOfDiverseModels,
    cost,
    train_misinformation,
)


class Says:
    """Responses every image with the same logits."""

    def __init__(self, *logits: float) -> None:
        self.logits = np.array(logits, np.float32)

    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.tile(self.logits, (len(images), 1))


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8)).astype(np.float32) / 255


def test_misinformation_answers_the_unsure() -> None:
    defence = AdaptiveMisinformation(0.75, Says(0, 5))
    rows = np.float32([[0.9, 0.1], [0.6, 0.4], [0.75, 0.25]])
    lie = softmax(np.float32([[0, 5]]))[0]
    responses = defence.perturb(IMAGES[:3], rows)
    np.testing.assert_allclose(responses, [rows[0], lie, (rows[2] + lie) / 2], rtol=0, atol=1e-6)
    assert np.array_equal(AdaptiveMisinformation(0, Says(0, 5)).perturb(IMAGES[:3], rows), rows)
    with pytest.raises(InputError, match="3 classes, but the victim 2"):
        AdaptiveMisinformation(0.75, Says(0, 1, 2)).perturb(IMAGES[:3], rows)


def test_a_trained_misinformation_network_is_wrong_on_what_it_did_not_see(digits) -> None:
    state = torch.random.get_rng_state()
    liars = [
        train_misinformation(
            digits.pool[:400], digits.pool_labels[:400], network="mlp", epochs=5, seed=1
        )
        for _ in range(2)
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(liars[0].parameters(), liars[1].parameters(), strict=True):
        assert torch.equal(a, b)
    # A tenth would be chance.
    assert accuracy(liars[0], digits.test, digits.test_labels) < 0.05
    rows = softmax(TorchPredictor(digits.model).predict(digits.test))
    responses = AdaptiveMisinformation(0.9, liars[0]).perturb(digits.test, rows)
    sure = rows.max(axis=1) > 0.91
    np.testing.assert_allclose(responses[sure], rows[sure], rtol=0, atol=1e-3)
    assert cost(rows[~sure], responses[~sure]).labels_changed > 0.5


def test_misinformation_training_refuses() -> None:
    labels = np.zeros(60, np.int64)
    with pytest.raises(InputError, match="at least 2 images and 1 epoch"):
        train_misinformation(IMAGES, labels, epochs=0)
    with pytest.raises(InputError, match="label 3 does not fit 2 classes"):
        train_misinformation(IMAGES, labels + 3, classes=2)
    with pytest.raises(InputError, match="training labels"):
        train_misinformation(IMAGES, labels[:5])


def test_the_image_and_the_secret_pick_the_member() -> None:
    ensemble = EnsembleOfDiverseModels([Says(9, 0), Says(0, 9)], secret=1)
    rows = np.full((60, 2), 0.5, np.float32)
    responses = ensemble.perturb(IMAGES, rows)
    members = ensemble.members(IMAGES)
    assert set(members) == {0, 1, 2}
    assert np.array_equal(responses[members == 0], rows[members == 0])
    assert np.array_equal(responses.argmax(axis=1)[members > 0], members[members > 0] - 1)
    # A function of the image alone, however it is asked.
    assert np.array_equal(responses, ensemble.perturb(IMAGES, rows))
    assert np.array_equal(responses[::-1], ensemble.perturb(IMAGES[::-1], rows[::-1]))
    other = EnsembleOfDiverseModels([Says(9, 0), Says(0, 9)], secret=2)
    assert not np.array_equal(other.members(IMAGES), members)


def test_one_grey_value_draws_anew_and_less_does_not() -> None:
    ensemble = EnsembleOfDiverseModels([Says(0, 1)])
    members = ensemble.members(IMAGES)
    shift = np.where(IMAGES[:, 0, 0, 0] < 0.5, 1, -1).astype(np.float32)
    for size, same in ((0.25, True), (1, False)):
        changed = IMAGES.copy()
        changed[:, 0, 0, 0] += shift * np.float32(size / 255)
        assert np.array_equal(ensemble.members(changed), members) is same


def test_ensemble_refuses() -> None:
    with pytest.raises(InputError, match="at least one network"):
        EnsembleOfDiverseModels([])
    with pytest.raises(InputError, match="member 1 has 3 classes, but the victim 2"):
        EnsembleOfDiverseModels([Says(0, 1, 2)]).perturb(IMAGES, np.full((60, 2), 0.5, np.float32))
