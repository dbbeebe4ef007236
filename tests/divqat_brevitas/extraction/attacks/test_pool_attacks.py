"""What all attacks that start from images share, and each one's gain over not asking."""

import json

import numpy as np
import pytest
import torch
from clones import zero_query_accuracy
from torch import nn

from divqat_brevitas.data import load, query_pool
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    ActiveThief,
    BudgetExceededError,
    CopycatCNN,
    JacobianAugmentation,
    KnockoffNets,
    PlainLearner,
    SemiSupervised,
    Substitute,
    SurrogateTraining,
    Victim,
    accuracy,
    agreement,
    make_attack,
)
from divqat_brevitas.extraction.attack_spec import AttackSpec, check, draw_queries, pool_size
from divqat_brevitas.extraction.attacks.jacobian import step_towards

QUICK = PlainLearner(surrogate="mlp", epochs=2)
STEPS = Substitute(surrogate="mlp", steps=4)
NAMES = (
    "knockoff-random",
    "knockoff-adaptive",
    "copycat",
    "jbda",
    "jbtr",
    "active-kcenter",
    "active-entropy",
    "active-dfal+kcenter",
    "semi-supervised",
)


def build(name: str, learner: PlainLearner = QUICK, seed: int = 0, substitute=STEPS, rounds=3):
    if name.startswith("knockoff-"):
        return KnockoffNets(learner=learner, seed=seed, strategy=name.removeprefix("knockoff-"))
    if name == "copycat":
        return CopycatCNN(learner, seed)
    if name in ("jbda", "jbtr"):
        return JacobianAugmentation(learner, seed, name, seeds=20, substitute=substitute)
    if name == "semi-supervised":
        return SemiSupervised(learner, seed)
    selection = name.removeprefix("active-").replace("kcenter", "k-center")
    return ActiveThief(learner, seed, selection, rounds=rounds, substitute=substitute)


def same_clone(a, b) -> bool:
    first, second = a.clone.state_dict(), b.clone.state_dict()
    return all(np.array_equal(first[k].numpy(), second[k].numpy()) for k in first)


@pytest.fixture
def pool() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (150, 1, 8, 8), np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_spends_the_budget_exactly_and_asks_what_it_says(name: str, spy, pool) -> None:
    victim = Victim(spy, budget=97)
    result = build(name).run(victim, pool)
    assert result.queries_used == victim.queries_used == 97
    asked = np.concatenate(spy.asked)
    assert asked.dtype == np.float32
    assert 0 <= asked.min() <= asked.max() <= 1
    if name.startswith("jb"):
        assert np.array_equal(asked[:20], pool[:20] / np.float32(255))
        assert len(result.indices) == 0
    else:
        assert np.array_equal(asked, pool[result.indices] / np.float32(255))
        assert len(np.unique(result.indices)) == 97
    json.dumps([result.settings, result.rounds, result.history])
    assert result.settings["learner"]["name"] == "soft"
    assert result.settings["budget"] == 97
    assert result.rounds == [] or result.rounds[-1]["queries"] == 97


@pytest.mark.parametrize("name", NAMES)
def test_small_budget_within_the_victims(name: str, spy, pool) -> None:
    victim = Victim(spy, budget=20)
    # Fewer than the seeds of Jacobian augmentation, and than a query a round.
    assert build(name, rounds=10).run(victim, pool, budget=5).queries_used == 5
    with pytest.raises(BudgetExceededError):
        build(name).run(victim, pool, budget=16)
    assert victim.queries_used == 5


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("jb")])
def test_small_pool_is_asked_whole(name: str, spy, pool) -> None:
    result = build(name).run(Victim(spy, budget=500), pool)
    assert np.array_equal(np.sort(result.indices), np.arange(150))
    assert result.queries_used == 150


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("oracle", ["logits", "topk", "rounded", "top1"])
def test_works_with_every_oracle(name: str, oracle: str, digits) -> None:
    victim = Victim(digits.model, oracle=oracle, budget=60)
    result = build(name).run(victim, digits.pool[:100])
    assert victim.remaining == 0
    assert result.settings["oracle"] == oracle
    assert not result.clone.training


@pytest.mark.parametrize("name", NAMES)
def test_answers_that_say_nothing_are_survived(name: str, pool, make_spy) -> None:
    class Coarse(make_spy):
        # Four classes alike round to zero; one image in two is certain.
        def predict(self, images):
            logits = np.zeros((len(images), 4), np.float32)
            certain = images[:, 0, 0, 0] > 0.5
            logits[certain, 2] = 20
            return logits

    victim = Victim(Coarse(), oracle="rounded", decimals=0, budget=60)
    assert build(name).run(victim, pool).queries_used == 60


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits_whatever_the_global_state(name: str, digits) -> None:
    def run(seed: int, global_seed: int):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        before = torch.get_rng_state()
        result = build(name, seed=seed).run(Victim(digits.model, budget=50), digits.pool)
        assert torch.equal(before, torch.get_rng_state())
        return result

    a, b, c = run(1, 10), run(1, 20), run(2, 10)
    assert same_clone(a, b)
    assert a.rounds == b.rounds
    assert np.array_equal(a.indices, b.indices)
    assert a.history == b.history
    assert not same_clone(a, c)


@pytest.mark.slow  # trains clones
@pytest.mark.parametrize("name", NAMES)
def test_beats_a_clone_without_queries(name: str, digits) -> None:
    learner = PlainLearner(surrogate="mlp", epochs=20 if name == "semi-supervised" else 40)
    attack = build(name, learner, substitute=Substitute(surrogate="mlp", steps=40))
    result = attack.run(Victim(digits.model, budget=100), digits.pool)
    floor = zero_query_accuracy(digits.pool, digits.test, digits.test_labels, 10, QUICK, seeds=2)
    assert floor < 0.4
    assert accuracy(result.clone, digits.test, digits.test_labels) > floor + 0.2
    assert agreement(result.clone, digits.model, digits.test) > floor + 0.2


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_costs_no_query(name: str, spy, pool) -> None:
    victim = Victim(spy)
    attack = build(name)
    for bad, message in (
        (pool[0], "must have shape"),
        (pool / 255, "float64"),
        (pool[:1], "at least 2 answered queries"),
        (np.zeros((20, 1, 6, 6), np.uint8), "at least 8"),
    ):
        with pytest.raises(InputError, match=message):
            attack.run(victim, bad)
    assert victim.queries_used == 0
    with pytest.raises(InputError, match="seed"):
        build(name, seed=-1)


def test_bfloat16_reaches_the_clone(digits) -> None:
    learner = PlainLearner(
        surrogate="vgg-small", epochs=1, training=SurrogateTraining(precision="bfloat16")
    )
    for name in ("copycat", "semi-supervised"):
        result = build(name, learner).run(Victim(digits.model, budget=70), digits.pool[:140])
        assert all(p.dtype == torch.float32 for p in result.clone.parameters())
        assert np.isfinite(result.history[-1]["loss"])


def test_copycat_is_knockoff_on_labels_alone(digits) -> None:
    """ART's semantics: random choice, argmax of what is shown, fit."""
    copycat = CopycatCNN(QUICK, seed=4).run(Victim(digits.model, budget=80), digits.pool)
    knockoff = KnockoffNets(surrogate="mlp", epochs=2, seed=4, targets="argmax").run(
        Victim(digits.model, budget=80), digits.pool
    )
    on_labels = CopycatCNN(QUICK, seed=4).run(
        Victim(digits.model, oracle="top1", budget=80), digits.pool
    )
    assert np.array_equal(copycat.indices, knockoff.indices)
    assert same_clone(copycat, knockoff)
    assert same_clone(copycat, on_labels)


def test_clones_along_the_way_share_the_learners_precision() -> None:
    fast = PlainLearner(training=SurrogateTraining(precision="bfloat16", shift=2))
    for name in ("jbtr", "active-kcenter"):
        training = make_attack(name, fast).substitute.training
        assert (training.precision, training.shift) == ("bfloat16", 0)


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ("letterz", "did you mean 'letters'"),
        ("dataset:cifar1000", "did you mean 'cifar100'"),
        ("mix:in:0.05,letterz", "did you mean 'letters'"),
        ("mix:in:1.5,letters", "is no mixture"),
        ("mix:in:0.5,in", "is no mixture"),
        ("mix:dataset:mnist5:0.5,in", "did you mean 'mnist5k'"),
    ],
)
def test_pools_are_looked_up_before_anything_is_trained(pool: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check(AttackSpec(pool=pool))


@pytest.mark.parametrize(
    "pool", ["in", "letters", "noise", "photos:/no/such", "dataset:cifar10:5-9", "mix:in:0.1,fonts"]
)
def test_known_pools_pass_whether_or_not_their_images_are_there(pool: str) -> None:
    check(AttackSpec(pool=pool))


def test_an_attack_without_a_pool_needs_no_name() -> None:
    check(AttackSpec(attack="dfme", pool="none", budget=1000))


@pytest.mark.parametrize(
    ("pool", "share"), [("mix:in:0.5,letters", 0.5), ("mix:letters:0.2,in", 0.8)]
)
def test_a_mixture_has_as_many_images_as_its_finite_parts_allow(pool: str, share: float) -> None:
    held = len(load("digits", "pool")[1])
    there = pool_size(pool, "digits")
    assert there is not None
    assert (held - 2) / share - 1 <= there <= held / share
    for seed in range(3):
        assert len(query_pool(pool, "digits", there, seed).images) == there
    spec = AttackSpec(pool=pool, budget=1000)
    assert len(draw_queries(spec, "digits", fewer=True).images) == there
    with pytest.raises(InputError, match=f"'in' has {held} images"):
        draw_queries(spec, "digits")


def test_a_mixture_of_endless_parts_does_not_run_out() -> None:
    assert pool_size("mix:letters:0.5,noise", "digits") is None


# Jacobian-based augmentation: its rounds, steps and targets.
ONCE = PlainLearner(surrogate="mlp", epochs=1)


@pytest.fixture
def grey() -> np.ndarray:
    # Away from 0 and 1, so that no step is clipped.
    return np.random.default_rng(5).uniform(0.4, 0.6, (60, 1, 8, 8)).astype(np.float32)


def augment(**settings) -> JacobianAugmentation:
    return JacobianAugmentation(ONCE, substitute=STEPS, **settings)


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


def test_doubles_each_round_and_ends_at_the_budget(spy, grey) -> None:
    result = augment(seeds=10).run(Victim(spy, budget=97), grey)
    assert [round_["queries"] for round_ in result.rounds] == [10, 20, 40, 80, 97]
    assert [len(batch) for batch in spy.asked] == [10, 10, 20, 40, 17]


def test_reservoir_limits_a_round(spy, grey) -> None:
    result = augment(seeds=10, reservoir=15).run(Victim(spy, budget=60), grey)
    assert [round_["queries"] for round_ in result.rounds] == [10, 20, 35, 50, 60]


@pytest.mark.parametrize("method", ["jbda", "jbtr"])
def test_uses_its_seeds_and_no_other_image_of_the_pool(method: str, make_spy, grey) -> None:
    asked = []
    for images in (grey, grey[:10]):
        spy = make_spy()
        augment(method=method, seeds=10).run(Victim(spy, budget=35), images)
        asked.append(np.concatenate(spy.asked))
    assert np.array_equal(*asked)


@pytest.mark.parametrize("method", ["jbda", "jbtr"])
def test_children_lie_within_the_step_of_a_parent(method: str, spy, grey) -> None:
    augment(method=method, seeds=10, step=0.125).run(Victim(spy, budget=20), grey)
    seeds, children = spy.asked
    distance = np.abs(seeds - children).max(axis=(1, 2, 3))
    assert (distance > 0).all()
    assert (distance <= 0.125 + 1e-6).all()  # float32 additions


def test_first_rounds_step_away_from_the_label(make_spy, grey) -> None:
    children = []
    for period in (3, None):
        spy = make_spy()
        augment(seeds=10, period=period).run(Victim(spy, budget=20), grey)
        children.append(spy.asked[1] - spy.asked[0])
    # The same substitute, the same gradient, the other sign.
    assert np.allclose(children[0], -children[1], rtol=0, atol=1e-6)  # float32 additions


def test_targets_are_other_classes_than_the_label(monkeypatch, spy, grey) -> None:
    targets = []

    def remember(clone, images, labels, step, iterations=1):
        targets.append(labels)
        return images

    monkeypatch.setattr("divqat_brevitas.extraction.attacks.jacobian.step_towards", remember)
    augment(method="jbtr", seeds=30).run(Victim(spy, budget=60), grey)
    # The spy calls all of these images class 2.
    assert set(spy.predict(grey[:30]).argmax(axis=1)) == {2}
    assert set(targets[0]) == {0, 1}


def test_random_targets_change_more_answers_than_steps_to_the_own_label(digits) -> None:
    """PRADA's reason for "T-RND": queries that the attacker cannot guess the response of."""
    kept = {}
    for method in ("jbda", "jbtr"):
        attack = JacobianAugmentation(
            ONCE,
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
