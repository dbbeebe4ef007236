"""MAD and GRAD² against brute force with automatic differentiation."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import build_surrogate, softmax
from divqat_brevitas.extraction.defences import (
    MAD,
    GradientRedirection,
    cost,
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
