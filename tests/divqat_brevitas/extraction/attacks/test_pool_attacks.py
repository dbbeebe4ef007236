"""What all attacks that start from images share, and each one's gain over not asking."""

import json

import numpy as np
import pytest
import torch
from clones import zero_query_accuracy

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
