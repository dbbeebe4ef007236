import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    AdaptiveSampling,
    BudgetExceededError,
    KnockoffNets,
    PlainLearner,
    Victim,
    accuracy,
    agreement,
    build_surrogate,
    softmax,
)
from divqat_brevitas.extraction.learners.catalogue import make_learner

FAST = {"surrogate": "mlp", "epochs": 3}


def assert_same_clone(a, b) -> None:
    first, second = a.clone.state_dict(), b.clone.state_dict()
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[k].numpy(), second[k].numpy()) for k in first)


@pytest.fixture
def pool() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (150, 1, 8, 8), np.uint8)


def test_budget_of_the_attack_within_the_victims(spy, pool) -> None:
    victim = Victim(spy, budget=100)
    attack = KnockoffNets(**FAST)
    assert attack.run(victim, pool, budget=60).queries_used == 60
    with pytest.raises(BudgetExceededError, match="60 queries, but the victim has 40 of 100"):
        attack.run(victim, pool, budget=60)
    assert victim.queries_used == 60
    assert attack.run(victim, pool).queries_used == 40
    with pytest.raises(BudgetExceededError):
        attack.run(victim, pool)


def test_smaller_budget_asks_the_first_of_the_larger(spy, pool) -> None:
    attack = KnockoffNets(seed=3, **FAST)
    small = attack.run(Victim(spy), pool, budget=30).indices
    large = attack.run(Victim(spy), pool, budget=90).indices
    assert np.array_equal(small, large[:30])
    assert not np.array_equal(small, np.sort(small))


@pytest.mark.slow  # trains clones
@pytest.mark.parametrize("strategy", ["random", "adaptive"])
@pytest.mark.parametrize("targets", ["soft", "argmax"])
def test_copies_an_undefended_victim(strategy: str, targets: str, digits) -> None:
    attack = KnockoffNets(strategy=strategy, targets=targets, surrogate="vgg-small", epochs=12)
    result = attack.run(Victim(digits.model, budget=600), digits.pool)
    untrained = build_surrogate("vgg-small", (1, 8, 8), 10, 0)
    assert agreement(untrained, digits.model, digits.test) < 0.4
    assert agreement(result.clone, digits.model, digits.test) > 0.9
    assert accuracy(result.clone, digits.test, digits.test_labels) > 0.85


def test_uint8_float32_and_pool_objects_are_the_same(spy, pool) -> None:
    @dataclass(frozen=True)
    class Pool:
        name: str
        images: np.ndarray

    attack = KnockoffNets(surrogate="mlp", epochs=1)
    runs = [
        attack.run(Victim(spy, budget=80), images)
        for images in (pool, pool / np.float32(255), Pool("p", pool))
    ]
    assert_same_clone(runs[0], runs[1])
    assert_same_clone(runs[0], runs[2])


def test_adaptive_bookkeeping(digits) -> None:
    victim = Victim(digits.model, budget=100)
    attack = KnockoffNets(strategy="adaptive", sampling=AdaptiveSampling(round_size=30), **FAST)
    result = attack.run(victim, digits.pool, labels=digits.pool_labels)
    assert [row.images for row in victim.ledger] == [30, 30, 30, 10]
    assert [round_["queries"] for round_ in result.rounds] == [30, 60, 90, 100]
    for round_ in result.rounds:
        assert len(round_["policy"]) == 10
        assert sum(round_["policy"]) == pytest.approx(1, abs=1e-12)  # ten float64 terms
        assert 0 <= round_["certainty"] <= 1
        assert 0 <= round_["diversity"] <= 1
        assert round_["loss"] >= 0
    # The rewards of the first round, from the outside: uniform average, responses of the oracle.
    responses = softmax(
        digits.model(torch.tensor(digits.pool[result.indices[:30]] / np.float32(255)))
        .detach()
        .numpy()
    )
    top = np.sort(responses, axis=1)
    # float32 logits of another batch size
    assert result.rounds[0]["certainty"] == pytest.approx(
        (top[:, -1] - top[:, -2]).mean(), abs=1e-5
    )
    rise = np.maximum(0, responses - 0.1).sum(axis=1).mean()
    assert result.rounds[0]["diversity"] == pytest.approx(rise, abs=1e-5)
    assert result.settings["actions"] == "labels"


def test_adaptive_asks_where_it_pays(spy) -> None:
    # Group 1's images get confident responses, the others flat ones.
    pool = np.random.default_rng(0).integers(0, 20, (900, 1, 8, 8), np.uint8)
    labels = np.arange(900) % 3
    pool[labels == 1, :, 0, 2] = 255
    sampling = AdaptiveSampling(rewards=("certainty",))
    attack = KnockoffNets(strategy="adaptive", sampling=sampling, surrogate="mlp", epochs=1)
    result = attack.run(Victim(spy, budget=250), pool, labels=labels)
    share = (labels[result.indices] == 1).mean()
    assert share > 0.5  # a third would be chance


def test_labels_need_not_be_dense(spy, pool) -> None:
    labels = np.where(np.arange(150) % 2 == 0, 7, 1000)
    attack = KnockoffNets(strategy="adaptive", **FAST)
    result = attack.run(Victim(spy, budget=50), pool, labels=labels)
    assert len(result.rounds[0]["policy"]) == 2


def test_unlabelled_pool_is_grouped(spy, pool) -> None:
    attack = KnockoffNets(strategy="adaptive", sampling=AdaptiveSampling(groups=6), **FAST)
    result = attack.run(Victim(spy, budget=50), pool)
    assert len(result.rounds[0]["policy"]) == 6
    assert result.settings["actions"] == "k-means"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surrogate": "vgg"}, "unknown surrogate"),
        ({"strategy": "adaptiv"}, "did you mean 'adaptive'"),
        ({"targets": "hard"}, "unknown training targets"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_constructor_refuses(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        KnockoffNets(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": ("certain",)}, "did you mean 'certainty'"),
        ({"rewards": ()}, "rewards"),
        ({"round_size": 1}, "round_size"),
        ({"groups": 0}, "groups"),
    ],
)
def test_sampling_refuses(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdaptiveSampling(**settings)


def test_bad_labels_cost_no_query(spy, pool) -> None:
    victim = Victim(spy)
    with pytest.raises(InputError, match="pool labels must be 150 integers"):
        KnockoffNets(strategy="adaptive", **FAST).run(victim, pool, labels=np.zeros(3, np.int64))
    assert victim.queries_used == 0


def test_the_defences_numbers_and_the_learners_findings_are_kept(digits) -> None:
    victim = Victim(digits.model, budget=120, defence="reverse-sigmoid:0.5")
    learner = make_learner("filtered", surrogate="mlp", epochs=2)
    result = KnockoffNets(learner=learner, seed=1).run(victim, digits.pool)
    assert result.settings["defence"] == victim.defence
    assert result.settings["defence_settings"] == victim.defence_settings
    assert result.settings["defence_settings"]
    notes = result.settings["learner"]["notes"]
    assert notes["responses"] == 120
    assert 0 <= notes["ood_targets"] <= 120
    json.dumps(result.settings, allow_nan=False)


def test_nothing_found_leaves_no_notes(digits) -> None:
    learner = PlainLearner(surrogate="mlp", epochs=1)
    result = KnockoffNets(learner=learner, seed=1).run(Victim(digits.model, budget=40), digits.pool)
    assert "notes" not in result.settings["learner"]
    assert result.settings["defence_settings"] == {}
    assert np.isfinite(result.history[-1]["loss"])
