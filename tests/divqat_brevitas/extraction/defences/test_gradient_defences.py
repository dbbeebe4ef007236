"""MAD and GRAD² against brute force with automatic differentiation."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TorchPredictor, accuracy, build_surrogate, softmax
from divqat_brevitas.extraction.defences import (
    MAD,
    AdaptiveMisinformation,
    EnsembleOfDiverseModels,
    GradientRedirection,
    cost,
    train_misinformation,
    train_redirection,
)
from divqat_brevitas.extraction.defences.grad2 import redirect
from divqat_brevitas.extraction.defences.mad import AHEAD

CLASSES = 4


@pytest.fixture(scope="module")
def surrogate() -> nn.Module:
    model = build_surrogate("mlp", (1, 8, 8), CLASSES, seed=5)
    with torch.no_grad():  # away from uniform responses
        next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)).weight.mul_(5)
    return model.eval()


def batch(count: int, classes: int = CLASSES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.random((count, 1, 8, 8), np.float32)
    return images, softmax(rng.normal(0, 2, (count, classes)))


def jacobian(model: nn.Module, image: np.ndarray, weights: list[nn.Parameter]) -> np.ndarray:
    """Rows: the gradient of log q_k by ``weights``."""
    log_q = F.log_softmax(model(torch.from_numpy(image[None])), dim=1)[0]
    rows = []
    for k in range(CLASSES):
        gradients = torch.autograd.grad(log_q[k], weights, retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in gradients]).double().numpy())
    return np.array(rows)


def turned(g: np.ndarray, response: np.ndarray, y: np.ndarray) -> float:
    u, v = response @ g, y @ g
    return float(np.sum((u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2))


@pytest.mark.parametrize("keep_label", [False, True])
def test_mad_is_the_papers_search_on_the_last_layers_jacobian(surrogate, keep_label) -> None:
    images, rows = batch(12)
    responses = MAD(0.5, keep_label=keep_label, surrogate=surrogate).perturb(images, rows)
    weight = [list(surrogate.parameters())[-2]]  # of the fully connected layer
    for image, y, response in zip(images, rows.astype(np.float64), responses, strict=True):
        g = jacobian(surrogate, image, weight)
        masks = np.eye(CLASSES)
        if keep_label:
            masks = np.array([m for m in product((0.0, 1.0), repeat=CLASSES) if m[y.argmax()]])
            masks[:, y.argmax()] += AHEAD
            masks /= masks.sum(axis=1, keepdims=True)
        corner = masks[np.argmax([turned(g, m, y) for m in masks])]
        h = min(1, 0.5 / np.abs(corner - y).sum())
        np.testing.assert_allclose(response, (1 - h) * y + h * corner, rtol=0, atol=1e-6)


def test_mad_stays_in_its_ball_and_fills_it(surrogate) -> None:
    images, rows = batch(50)
    for epsilon in (0.0, 0.3, 2.0):
        responses = MAD(epsilon, surrogate=surrogate).perturb(images, rows)
        l1 = np.abs(responses - rows).sum(axis=1)
        assert l1.max() <= epsilon + 1e-6
    # Mass on any class but the label's is as far as 2 (1 - y_k), so 0.3 is always reached there.
    responses = MAD(0.3, surrogate=surrogate).perturb(images, rows)
    assert cost(rows, responses).l1 == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 10, 11, 30])
def test_mad_argmax_keeps_every_label(classes: int) -> None:
    images, rows = batch(60, classes, seed=2)
    for epsilon in (0.01, 0.5, 2.0):
        responses = MAD(epsilon, keep_label=True).perturb(images, rows)
        assert cost(rows, responses).labels_changed == 0
        assert np.abs(responses - rows).sum(axis=1).max() <= epsilon + 1e-6
    assert cost(rows, responses).l1 > 0


def test_the_greedy_search_of_many_classes_is_nearly_the_exact_one(monkeypatch) -> None:
    images, rows = batch(40, 8, seed=3)
    exact = MAD(2.0, keep_label=True).perturb(images, rows)
    monkeypatch.setattr("divqat_brevitas.extraction.defences.mad.MOST_EXACT", 0)
    greedy = MAD(2.0, keep_label=True).perturb(images, rows)
    # Not always the best mixture, but for most rows it is.
    assert (np.abs(exact - greedy).sum(axis=1) < 1e-5).mean() > 0.5


def test_redirect_solves_the_linear_program() -> None:
    rng = np.random.default_rng(0)
    for epsilon in (0.1, 0.7, 2.0):
        rows = softmax(rng.normal(0, 2, (6, 5)))
        rows[0] = [1, 0, 0, 0, 0]
        c = rng.normal(size=(6, 5))
        responses = redirect(rows, c, epsilon)
        for y, gain, response in zip(rows.astype(np.float64), c, responses, strict=True):
            # Variables y' and t >= |y' - y|.
            eye = np.eye(5)
            found = linprog(
                np.concatenate([-gain, np.zeros(5)]),
                A_ub=np.block([[eye, -eye], [-eye, -eye], [np.zeros(5), np.ones(5)]]),
                b_ub=np.concatenate([y, -y, [epsilon]]),
                A_eq=[[1] * 5 + [0] * 5],
                b_eq=[y.sum()],
            )
            assert response @ gain == pytest.approx(-found.fun, abs=1e-5)
            assert np.abs(response - y).sum() <= epsilon + 1e-6


@pytest.mark.parametrize("direction", ["all-ones", "min-ip"])
def test_grad2_pushes_where_the_papers_jacobian_says(surrogate, direction) -> None:
    images, rows = batch(5)
    weights = list(surrogate.parameters())
    g = np.array([jacobian(surrogate, image, weights) for image in images])
    z = np.ones(g.shape[2])
    if direction == "min-ip":
        z = -np.einsum("nk,nkd->d", rows.astype(np.float64), g) / len(rows)
    defence = GradientRedirection(0.6, surrogate, direction)
    responses = defence.perturb(images, rows)
    np.testing.assert_allclose(responses, redirect(rows, g @ z, 0.6), rtol=0, atol=1e-6)
    assert all(p.grad is None for p in surrogate.parameters())


def test_grad2_through_convolution_normalisation_and_pooling(digits) -> None:
    net = train_redirection(
        digits.pool[:100], digits.pool_labels[:100], classes=10, epochs=1, network="vgg-small"
    )
    images = digits.pool[:8] / np.float32(255)
    rows = softmax(np.random.default_rng(0).normal(0, 1, (8, 10)))
    buffers = [b.clone() for b in net.buffers()]
    responses = GradientRedirection(0.4, net).perturb(images, rows)
    assert cost(rows, responses).l1 == pytest.approx(0.4, abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(buffers, net.buffers(), strict=True))


def test_refusals(surrogate) -> None:
    images, rows = batch(3, classes=7)
    for defence in (MAD(0.5, surrogate=surrogate), GradientRedirection(0.5, surrogate)):
        with pytest.raises(InputError, match="4 classes, but the victim 7"):
            defence.perturb(images, rows)
    with pytest.raises(InputError, match="epsilon of defence 'mad'"):
        MAD(2.1)
    with pytest.raises(InputError, match="unknown direction"):
        GradientRedirection(0.5, surrogate, "all-twos")
    with pytest.raises(InputError, match="torch module"):
        GradientRedirection(0.5, object())  # type: ignore[arg-type]


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
