import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import JacobianAugmentation, PlainLearner, Substitute, Victim
from divqat_brevitas.extraction.attacks.jacobian import step_towards

QUICK = PlainLearner(surrogate="mlp", epochs=1)
STEPS = Substitute(surrogate="mlp", steps=4)


@pytest.fixture
def pool() -> np.ndarray:
    # Away from 0 and 1, so that no step is clipped.
    return np.random.default_rng(5).uniform(0.4, 0.6, (60, 1, 8, 8)).astype(np.float32)


def augment(**settings) -> JacobianAugmentation:
    return JacobianAugmentation(QUICK, substitute=STEPS, **settings)


def logit(model: nn.Module, images: np.ndarray, label: int) -> np.ndarray:
    return model(torch.from_numpy(images)).log_softmax(dim=1)[:, label].detach().numpy()


def test_a_step_is_the_sign_of_the_gradient(digits) -> None:
    images = digits.pool[:40] / np.float32(255)
    labels = np.full(40, 3)
    towards = step_towards(digits.model, images, labels, 0.05)
    away = step_towards(digits.model, images, labels, -0.05)
    assert (logit(digits.model, towards, 3) >= logit(digits.model, images, 3)).all()
    assert (logit(digits.model, away, 3) <= logit(digits.model, images, 3)).all()
    x = torch.from_numpy(images).requires_grad_()
    digits.model(x).softmax(dim=1)[:, 3].sum().backward()
    by_hand = np.clip(images + np.float32(0.05) * np.sign(x.grad.numpy()), 0, 1)
    # Where the softmax itself has no gradient left in float32, its logarithm still has one.
    alive = x.grad.abs().flatten(1).amax(dim=1).numpy() > 1e-6
    assert alive.sum() > 10
    assert np.allclose(towards[alive], by_hand[alive], rtol=0, atol=1e-6)  # one float32 rounding


def test_doubles_each_round_and_ends_at_the_budget(spy, pool) -> None:
    result = augment(seeds=10).run(Victim(spy, budget=97), pool)
    assert [round_["queries"] for round_ in result.rounds] == [10, 20, 40, 80, 97]
    assert [len(batch) for batch in spy.asked] == [10, 10, 20, 40, 17]


def test_reservoir_limits_a_round(spy, pool) -> None:
    result = augment(seeds=10, reservoir=15).run(Victim(spy, budget=60), pool)
    assert [round_["queries"] for round_ in result.rounds] == [10, 20, 35, 50, 60]


@pytest.mark.parametrize("method", ["jbda", "jbtr"])
def test_uses_its_seeds_and_no_other_image_of_the_pool(method: str, make_spy, pool) -> None:
    asked = []
    for images in (pool, pool[:10]):
        spy = make_spy()
        augment(method=method, seeds=10).run(Victim(spy, budget=35), images)
        asked.append(np.concatenate(spy.asked))
    assert np.array_equal(*asked)


@pytest.mark.parametrize("method", ["jbda", "jbtr"])
def test_children_lie_within_the_step_of_a_parent(method: str, spy, pool) -> None:
    augment(method=method, seeds=10, step=0.125).run(Victim(spy, budget=20), pool)
    seeds, children = spy.asked
    distance = np.abs(seeds - children).max(axis=(1, 2, 3))
    assert (distance > 0).all()
    assert (distance <= 0.125 + 1e-6).all()  # float32 additions


def test_first_rounds_step_away_from_the_label(make_spy, pool) -> None:
    children = []
    for period in (3, None):
        spy = make_spy()
        augment(seeds=10, period=period).run(Victim(spy, budget=20), pool)
        children.append(spy.asked[1] - spy.asked[0])
    # The same substitute, the same gradient, the other sign.
    assert np.allclose(children[0], -children[1], rtol=0, atol=1e-6)  # float32 additions


def test_targets_are_other_classes_than_the_label(monkeypatch, spy, pool) -> None:
    targets = []

    def remember(clone, images, labels, step, iterations=1):
        targets.append(labels)
        return images

    monkeypatch.setattr("divqat_brevitas.extraction.attacks.jacobian.step_towards", remember)
    augment(method="jbtr", seeds=30).run(Victim(spy, budget=60), pool)
    # The spy calls all of these images class 2.
    assert set(spy.predict(pool[:30]).argmax(axis=1)) == {2}
    assert set(targets[0]) == {0, 1}


def test_random_targets_change_more_answers_than_steps_to_the_own_label(digits) -> None:
    """PRADA's reason for "T-RND": queries that the attacker cannot guess the response of."""
    kept = {}
    for method in ("jbda", "jbtr"):
        attack = JacobianAugmentation(
            QUICK,
            method=method,
            seeds=30,
            step=0.3,
            period=None,
            substitute=Substitute(surrogate="mlp", steps=60),
        )
        rounds = attack.run(Victim(digits.model, budget=60), digits.pool).rounds
        kept[method] = rounds[1]["kept_label"]
    assert kept["jbda"] > 0.9
    assert kept["jbtr"] < 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "jbdr"}, "did you mean"),
        ({"seeds": 1}, "seeds"),
        ({"step": 0.0}, "step"),
        ({"iterations": 0}, "iterations"),
        ({"period": 0}, "period"),
        ({"reservoir": 0}, "reservoir"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refuses(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        augment(**settings)
