"""Learners that undo a defence: recovery, and filtering of its targets."""

import json

import numpy as np
import pytest
import torch
from clones import (
    RolledDefence,
    clean_responses,
    clone_accuracy,
    one_hot,
    plain,
    rolled_pairs,
    zero_query_accuracy,
)

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    TorchPredictor,
    TransferSet,
    accuracy,
    build_surrogate,
    make_learner,
)
from divqat_brevitas.extraction.attack_spec import AttackSpec, draw_queries, run_attack
from divqat_brevitas.extraction.defences import DefendedPredictor
from divqat_brevitas.extraction.learners.filtered import FilteredLearner, find_ood_targets
from divqat_brevitas.extraction.learners.recovery import (
    PartialBayes,
    Recovery,
    RecoveryLearner,
    ShadowPairs,
)
from divqat_brevitas.extraction.oracles import show_top1, softmax


def shadow(count: int = 3000) -> ShadowPairs:
    return rolled_pairs(10, count)


def defended(digits) -> np.ndarray:
    clean = clean_responses(digits)
    return RolledDefence().perturb(digits.pool, clean)


def test_network_recovers_labels_that_a_known_defence_moved(digits) -> None:
    pairs = shadow()
    recovery = Recovery.fit(pairs.defended, pairs.undefended, seed=0, epochs=15)
    clean, shown = clean_responses(digits), defended(digits)
    assert not np.any(shown.argmax(axis=1) == clean.argmax(axis=1))
    recovered = recovery.recover(shown)
    assert recovered.dtype == np.float32
    np.testing.assert_allclose(recovered.sum(axis=1), 1, atol=1e-6)  # ten float32 terms
    assert (recovered.argmax(axis=1) == clean.argmax(axis=1)).mean() > 0.97
    assert np.abs(recovered - clean).sum(axis=1).mean() < 0.3  # L1 of the defended ones: near 2
    learner = RecoveryLearner(recovery=recovery, base=plain())
    assert clone_accuracy(plain(), digits, shown) < 0.1
    assert clone_accuracy(learner, digits, shown) > 0.8


def test_bayes_recovers_labels_that_a_known_defence_moved(digits) -> None:
    clean, shown = clean_responses(digits), defended(digits)
    recovery = PartialBayes(shadow())
    assert (recovery.recover(shown).argmax(axis=1) == clean.argmax(axis=1)).mean() > 0.97
    learner = RecoveryLearner(recovery=recovery, base=plain("argmax"))
    assert learner.name == "bayes-argmax"
    assert clone_accuracy(learner, digits, shown) > 0.8


@pytest.mark.parametrize("name", ["ddae+", "pbayes"])
def test_a_known_defence_is_undone_without_a_network(name: str, digits) -> None:
    """Through a spec's own defence too: it beats a clone without queries and the plain learner."""
    learner = make_learner(name, "mlp", 8, known=RolledDefence())
    assert learner.settings["known"] == "rolled"
    assert clone_accuracy(learner, digits, defended(digits)) > 0.8
    floor = zero_query_accuracy(digits.pool, digits.test, digits.test_labels, 10, plain(), seeds=2)
    spec = AttackSpec(
        learner=name, surrogate="mlp", defence="reverse-sigmoid:0.5", budget=200, epochs=12
    )
    queries = draw_queries(spec, "digits")
    outcome = run_attack(spec, TorchPredictor(digits.model), queries)
    assert outcome.result.settings["learner"]["known"] == spec.defence
    assert accuracy(outcome.result.clone, digits.test, digits.test_labels) > floor + 0.2


def test_bayes_averages_what_the_defence_makes_one() -> None:
    defended = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    clean = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]], np.float32)
    recovery = PartialBayes(ShadowPairs(defended, clean), neighbours=1)
    expected = [[0.8, 0.2], [0.2, 0.8]]
    np.testing.assert_allclose(recovery.recover(defended[1:]), expected, rtol=1e-6)  # float32
    nearest = recovery.recover(np.array([[0.1, 0.9]], np.float32))
    np.testing.assert_allclose(nearest, [[0.2, 0.8]], rtol=1e-6)  # float32
    everything = PartialBayes(ShadowPairs(defended, clean), neighbours=99).recover(defended[:1])
    np.testing.assert_allclose(everything, [[0.6, 0.4]], rtol=1e-6)


def test_same_seed_same_recovery_and_global_state_untouched() -> None:
    pairs = shadow(200)
    found = []
    for global_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        recovery = Recovery.fit(pairs.defended, pairs.undefended, seed=seed, epochs=2)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(recovery.recover(pairs.defended))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_answers_that_say_nothing_stay_so(digits) -> None:
    recovery = PartialBayes(shadow(100))
    responses = defended(digits)[:60]
    responses[:20] = 0

    class Spy:
        name, surrogate, settings = "spy", "mlp", {}

        def learn(self, transfer_set, seed, on_epoch=None):
            self.seen = transfer_set.responses
            return plain(epochs=1).learn(transfer_set, seed)

    spy = Spy()
    learner = RecoveryLearner(recovery=recovery, base=spy)
    learned = learner.learn(TransferSet(digits.pool[:60], responses), 0)
    assert not spy.seen[:20].any()
    assert spy.seen[20:].any(axis=1).all()
    assert learned.notes["labels_changed"] >= 35
    assert json.loads(json.dumps(learner.settings))["recovery"]["pairs"] == 100


def test_pairs_of_networks_and_of_a_defence(digits) -> None:
    images = digits.pool[:30]
    other = build_surrogate("mlp", (1, 8, 8), 10, seed=0).eval()
    pairs = ShadowPairs.of_models(other, digits.model, images, "rounded", decimals=1)
    assert np.array_equal(pairs.undefended, clean_responses(digits, 30))
    assert np.array_equal(pairs.defended, pairs.defended.round(1))
    behind = DefendedPredictor(digits.model, RolledDefence())
    pairs = ShadowPairs.of_models(behind, digits.model, images)
    assert np.array_equal(pairs.undefended, clean_responses(digits, 30))
    # float32 logarithm and back
    expected = RolledDefence().perturb(images, pairs.undefended)
    np.testing.assert_allclose(pairs.defended, expected, rtol=1e-5)
    logits = ShadowPairs.of_models(behind, digits.model, images, "logits")
    np.testing.assert_allclose(logits.defended, expected, rtol=1e-5)


def test_refusals() -> None:
    rows = softmax(np.zeros((3, 4), np.float32))
    with pytest.raises(InputError, match="one shape"):
        ShadowPairs(rows, rows[:2])
    with pytest.raises(InputError, match="at least 2 rows"):
        ShadowPairs(rows[:1], rows[:1])
    with pytest.raises(InputError, match="at least 1 epoch"):
        Recovery.fit(rows, rows, seed=0, epochs=0)
    for bad in ({"neighbours": 0}, {"tolerance": -1.0}):
        with pytest.raises(InputError, match=r"PartialBayes: .* must be at least"):
            PartialBayes(ShadowPairs(rows, rows), **bad)


def test_few_pairs_keep_labels_that_the_defence_kept(digits) -> None:
    def flatten(probabilities: np.ndarray) -> np.ndarray:
        flat = probabilities.astype(np.float64) ** 0.3
        return (flat / flat.sum(axis=1, keepdims=True)).astype(np.float32)

    clean = clean_responses(digits)
    # Pairs of two classes alone: nothing in them speaks of the others.
    prior = np.random.default_rng(0).dirichlet([0.3, 0.3] + [0.01] * 8, 100).astype(np.float32)
    recovery = Recovery.fit(flatten(prior), prior, seed=0, epochs=20)
    recovered = recovery.recover(flatten(clean))
    assert (recovered.argmax(axis=1) == clean.argmax(axis=1)).mean() > 0.9


def partly_replaced(digits, share: float, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clean answers with a share replaced by targets, and which were."""
    responses = clean_responses(digits)
    hit = np.random.default_rng(0).random(len(responses)) < share
    return np.where(hit[:, None], targets, responses).astype(np.float32), hit


def test_constant_ood_target_is_found_and_left_out(digits) -> None:
    constant = 0.9 * one_hot(np.full(700, 3)) + np.float32(0.01)
    responses, hit = partly_replaced(digits, 0.8, constant)
    assert np.array_equal(
        find_ood_targets(responses), hit
    )  # its exact profile tells it from honest 3s
    assert clone_accuracy(plain(), digits, responses) < 0.3
    assert clone_accuracy(FilteredLearner(base=plain(epochs=30)), digits, responses) > 0.75


def test_noisy_constant_ood_target_is_found_by_its_class(digits) -> None:
    noise = np.random.default_rng(1).dirichlet(np.ones(10), 700)
    responses, hit = partly_replaced(digits, 0.8, 0.8 * one_hot(np.full(700, 3)) + 0.2 * noise)
    found = find_ood_targets(responses)
    honest_threes = ~hit & (responses.argmax(axis=1) == 3)
    assert np.array_equal(found, hit | honest_threes)


def test_wrong_class_ood_target_with_one_profile_is_found(digits) -> None:
    wrong = (clean_responses(digits).argmax(axis=1) + 1) % 10
    responses, hit = partly_replaced(digits, 0.7, 0.9 * one_hot(wrong) + np.float32(0.01))
    assert np.array_equal(find_ood_targets(responses), hit)
    assert clone_accuracy(plain(), digits, responses) < 0.3
    filtered = FilteredLearner(base=plain("argmax", epochs=30))
    assert clone_accuracy(filtered, digits, responses) > 0.75
    assert filtered.name == "filtered-argmax"


def test_unmasked_takes_a_mixed_ood_target_off(digits) -> None:
    clean = clean_responses(digits)
    mixed = 0.8 * one_hot(np.full(700, 3)) + 0.2 * clean
    responses, _ = partly_replaced(digits, 0.95, mixed)
    assert clone_accuracy(plain(), digits, responses) < 0.3
    learner = FilteredLearner(base=plain(), unmask=True)
    assert clone_accuracy(learner, digits, responses) > 0.75
    assert learner.name == "unmasked"


def test_uninformative_ood_target_is_found(digits) -> None:
    responses, hit = partly_replaced(digits, 0.5, np.full((700, 10), 0.1, np.float32))
    assert np.array_equal(find_ood_targets(responses), hit)


def test_honest_answers_are_left_alone(digits) -> None:
    honest = clean_responses(digits)
    assert not find_ood_targets(honest).any()
    assert not find_ood_targets(show_top1(honest)).any()  # a coarse oracle repeats everything
    assert not find_ood_targets(honest.round(1)).any()
    learned = FilteredLearner(base=plain(epochs=1)).learn(TransferSet(digits.pool[:700], honest), 0)
    same = plain(epochs=1).learn(TransferSet(digits.pool[:700], honest), 0)
    assert learned.history == same.history
    assert learned.notes == {"responses": 700, "ood_targets": 0}


def test_keeps_everything_where_too_little_would_be_left(digits) -> None:
    constant = 0.9 * one_hot(np.full(100, 3)) + np.float32(0.01)
    constant[:10] = clean_responses(digits)[:10]
    assert find_ood_targets(constant).sum() >= 90
    learned = FilteredLearner(base=plain(epochs=1)).learn(
        TransferSet(digits.pool[:100], constant), 0
    )
    assert learned.notes["ood_targets"] == 0


def test_settings_and_refusal() -> None:
    learner = FilteredLearner(base=plain("topk:2"))
    settings = json.loads(json.dumps(learner.settings))
    assert settings["base"]["targets"] == settings["base"]["name"] == "topk:2"
    assert (learner.name, learner.surrogate) == ("filtered-topk:2", "mlp")
    with pytest.raises(InputError, match="above 1"):
        FilteredLearner(excess=1.0)
