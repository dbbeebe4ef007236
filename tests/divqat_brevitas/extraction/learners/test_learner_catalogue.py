"""Specs of learners, what each makes of responses, and training targets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from clones import RolledDefence, rolled_pairs

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    PlainLearner,
    SurrogateTraining,
    TorchPredictor,
    TransferSet,
    softmax,
)
from divqat_brevitas.extraction.learners.catalogue import LEARNERS, make_learner, strongest_learners
from divqat_brevitas.extraction.learners.filtered import AugmentedLearner, FilteredLearner
from divqat_brevitas.extraction.learners.recovery import ShadowPairs
from divqat_brevitas.extraction.learners.targets import (
    TARGETS,
    as_probabilities,
    target_function,
    training_targets,
)

ALL = [
    *LEARNERS,
    *strongest_learners(shadow=True, known=True),
    "topk:2",
    "filtered-pretrained-argmax",
]


@pytest.fixture(scope="module")
def pairs() -> ShadowPairs:
    return rolled_pairs(4, 50)


@pytest.mark.parametrize("name", dict.fromkeys(ALL))
def test_every_learner_makes_a_clone_twice_the_same(name: str, pairs: ShadowPairs) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 8, 8), np.uint8)
    transfer_set = TransferSet(images, rng.dirichlet(np.ones(4), 60).astype(np.float32))
    kept = transfer_set.images.copy(), transfer_set.responses.copy()

    def run(seed: int):
        own = TransferSet(images[:8], np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 2])
        learner = make_learner(
            *(name, "mlp", 1, SurrogateTraining(batch_size=16)),
            shadow=pairs,
            labelled=own,
            known=RolledDefence(),
        )
        assert (learner.name, learner.surrogate) == (name, "mlp")
        rows: list[dict[str, float]] = []
        learned = learner.learn(transfer_set, seed, rows.append)
        json.dumps([learner.settings, learned.notes, learned.history])
        assert rows == learned.history  # the clone's own epochs and no others
        assert not learned.clone.training
        return TorchPredictor(learned.clone).predict(images / np.float32(255))

    a, b, c = run(1), run(1), run(2)
    assert a.shape == (60, 4)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.array_equal(transfer_set.images, kept[0])
    assert np.array_equal(transfer_set.responses, kept[1])


def test_strongest_learners_name_their_aim() -> None:
    without = strongest_learners()
    assert set(strongest_learners(shadow=True)) - set(without) == {"recovery", "bayes"}
    assert set(strongest_learners(known=True)) - set(without) == {"ddae+", "pbayes"}
    assert all(aim for aim in without.values())
    assert "out-of-distribution" in without["filtered-argmax"]
    assert all(entry.needs_shadow == (n in ("recovery", "bayes")) for n, entry in LEARNERS.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("filterd", "did you mean 'filtered'"),
        ("filtered-argmx", "unknown learner 'filtered-argmx'"),
        ("filtered-", "unknown learner"),
        ("skeptical-argmax", "unknown learner"),
        ("topk:0", "whole number from 1"),
        ("pretrained-skeptical", "pretrained-argmax"),
        ("recovery", "needs shadow pairs"),
        ("bayes-argmax", "needs shadow pairs"),
        ("ddae+", "needs the defence"),
        ("pbayes-argmax", "'pbayes' needs the defence"),
        ("labelled-argmax", "needs labelled images"),
    ],
)
def test_refusals(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_learner(name)


BASE = SurrogateTraining(batch_size=16)


def transfer_set() -> TransferSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 8, 8), np.uint8)
    return TransferSet(images, rng.dirichlet(np.ones(4), 60).astype(np.float32))


@pytest.mark.parametrize(("name", "flip"), [("shifted", False), ("mirrored", True)])
@pytest.mark.parametrize("base", ["soft", "argmax", "filtered-argmax"])
def test_the_learner_behind_it_trains_on_changed_images(name: str, flip: bool, base: str) -> None:
    named = name if base == "soft" else f"{name}-{base}"
    changed = replace(BASE, shift=2, flip=flip)
    one = make_learner(named, "mlp", 1, BASE).learn(transfer_set(), 3)
    other = make_learner(base, "mlp", 1, changed).learn(transfer_set(), 3)
    plain = make_learner(base, "mlp", 1, BASE).learn(transfer_set(), 3)
    assert one.history == other.history
    assert one.history != plain.history
    assert one.notes == other.notes
    for ours, theirs in zip(one.clone.parameters(), other.clone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_says_what_it_does() -> None:
    learner = AugmentedLearner(base=FilteredLearner(base=PlainLearner(targets="argmax")))
    assert learner.name == "shifted-filtered-argmax"
    assert (learner.settings["shift"], learner.settings["flip"]) == (2, False)
    assert learner.settings["base"]["name"] == "filtered-argmax"


def test_refusals_of_augmented() -> None:
    with pytest.raises(InputError, match="shift=0 must be at least 1"):
        AugmentedLearner(shift=0)


ANSWERS = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0], [0.1, 0.2, 0.6]], np.float32)


def test_argmax_and_smooth() -> None:
    hard = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]], np.float32)
    assert np.array_equal(training_targets(ANSWERS, "argmax"), hard)
    third = 0.1 / 3
    smooth = [[0.9 + third, third, third], [0, 0, 0], [third, third, 0.9 + third]]
    # float32 of sums of two terms
    np.testing.assert_allclose(training_targets(ANSWERS, "smooth"), smooth, rtol=1e-6)


def test_only_logits_are_put_through_softmax() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    assert np.array_equal(as_probabilities(logits, "logits"), softmax(logits))
    assert np.array_equal(as_probabilities(ANSWERS, "topk"), ANSWERS)


def test_temperature_is_that_of_the_softmax() -> None:
    logits = np.array([[2.0, 0.0, -1.0], [-30.0, 5.0, 4.0]], np.float32)
    for temperature in (0.5, 2.0, 4.0):
        # float32 responses, their logarithms magnified by 1 / T
        np.testing.assert_allclose(
            training_targets(softmax(logits), f"temperature:{temperature}"),
            softmax(logits / np.float32(temperature)),
            rtol=1e-5,
        )
    assert np.array_equal(
        training_targets(ANSWERS, "temperature"), training_targets(ANSWERS, "temperature:2")
    )
    assert np.array_equal(training_targets(ANSWERS, "temperature:0.05")[2].round(3), [0, 0, 1])


def test_top_k_is_renormalised_and_ties_go_to_the_lowest_class() -> None:
    expected = np.array([[2 / 3, 1 / 3, 0], [0, 0, 0], [0, 0.25, 0.75]], np.float32)
    np.testing.assert_allclose(training_targets(ANSWERS, "topk:2"), expected, rtol=1e-6)  # float32
    np.testing.assert_allclose(training_targets(ANSWERS, "topk:9")[0], ANSWERS[0], rtol=1e-6)


def test_dropping_the_top_reveals_what_a_wrong_class_hides() -> None:
    clean = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1]], np.float32)
    constant = np.array([[0, 0, 1], [0, 1, 0]], np.float32)
    shown = np.float32(0.6) * constant + np.float32(0.4) * clean
    assert not np.any(training_targets(shown, "argmax").argmax(axis=1) == clean.argmax(axis=1))
    assert np.array_equal(training_targets(shown, "second"), training_targets(clean, "argmax"))
    expected = [[0.1 / 0.8, 0.7 / 0.8, 0], [0.8 / 0.9, 0, 0.1 / 0.9]]
    np.testing.assert_allclose(training_targets(shown, "drop-top"), expected, rtol=1e-6)  # float32


@pytest.mark.parametrize("targets", ["drop-top", "second"])
def test_nothing_under_the_top_says_nothing(targets: str) -> None:
    one_hot = np.array([[0, 1, 0]], np.float32)
    assert not training_targets(one_hot, targets).any()


@pytest.mark.parametrize("name", [*TARGETS, "smooth:0.3", "temperature:4", "topk:2"])
def test_targets_are_distributions_or_nothing(name: str) -> None:
    responses = np.random.default_rng(0).dirichlet(np.full(5, 0.1), 50).astype(np.float32)
    responses[0] = 0
    kept = responses.copy()
    targets = training_targets(responses, name)
    assert np.array_equal(responses, kept)
    assert targets.dtype == np.float32
    assert not targets[0].any()
    np.testing.assert_allclose(targets[1:].sum(axis=1), 1, atol=1e-6)  # five float32 terms


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temperature:0", "a number from 0.05 to 100"),
        ("temperature:nan", "a number from 0.05"),
        ("temperature:hot", "a number from 0.05"),
        ("topk:1.5", "a whole number from 1"),
        ("topk:", "a whole number from 1"),
        ("smooth:1", "from 0 to 0.9"),
        ("argmax:2", "takes no parameter"),
        ("temprature:2", "did you mean 'temperature'"),
    ],
)
def test_bad_parameters(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        target_function(name)


def test_centred_reads_the_answer_under_a_constant_ood_target() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(400, 6)).astype(np.float32)
    constant = np.array([12, 0, 3, -2, 1, 0], np.float32)
    shown = softmax(true + constant)
    assert (shown.argmax(axis=1) == 0).mean() > 0.99
    found = training_targets(shown, "centred").argmax(axis=1)
    # Each class is centred by its own median over 400 responses, not by the constant itself.
    assert (found == true.argmax(axis=1)).mean() > 0.9


def test_centred_drops_answers_that_equal_the_ood_target() -> None:
    constant = softmax(np.array([[5, 0, 1]], np.float32))
    other = softmax(np.array([[0, 5, 1]], np.float32))
    targets = training_targets(np.concatenate([constant, constant, other, constant]), "centred")
    assert not targets[[0, 1, 3]].any()
    assert targets[2].argmax() == 1


def test_centred_leaves_answers_that_are_all_alike() -> None:
    """An attacker who can read nothing off still has a label to train on."""
    alike = np.repeat(softmax(np.array([[5, 0, 1]], np.float32)), 5, axis=0)
    assert np.array_equal(training_targets(alike, "centred"), alike)
