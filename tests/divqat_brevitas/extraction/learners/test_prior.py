"""The correction of clones for the label prior, by itself and behind every attack."""

from dataclasses import replace

import numpy as np
import pytest
from clones import clean_responses, clone_accuracy, one_hot, plain, zero_query_accuracy

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    ATTACKS,
    PlainLearner,
    Substitute,
    TorchPredictor,
    TransferSet,
    Victim,
    accuracy,
    make_attack,
    make_learner,
)
from divqat_brevitas.extraction.attack_spec import AttackSpec, check, draw_queries, run_attack
from divqat_brevitas.extraction.learners.labelled import LabelledLearner
from divqat_brevitas.extraction.learners.prior import TAUS, CorrectedLearner
from divqat_brevitas.extraction.surrogates.networks import head_of


def lopsided(digits) -> tuple[TransferSet, np.ndarray]:
    """All images of two classes and four of each other one, with their labels; which they are."""
    labels = clean_responses(digits).argmax(axis=1)
    few = [np.flatnonzero(labels == label)[: 1000 if label < 2 else 4] for label in range(10)]
    rows = np.concatenate(few)
    return TransferSet(digits.pool[rows], one_hot(labels[rows])), rows


def test_it_subtracts_the_log_prior_and_gains_from_it(digits) -> None:
    transfer_set, _ = lopsided(digits)
    base = plain("argmax", epochs=8)
    raw = base.learn(transfer_set, 0)
    one = CorrectedLearner(base=base).learn(transfer_set, 0)
    assert one.history == raw.history
    prior = np.array(one.notes["prior"])
    assert abs(prior.sum() - 1) < 1e-3  # ten values rounded to four decimals
    assert prior[:2].min() > 3 * prior[2:].max()
    before, after = (TorchPredictor(t.clone).predict(digits.test) for t in (raw, one))
    moved = (before - after).astype(np.float64)
    # Float32 logits, and four decimals of the smallest prior.
    assert np.allclose(moved, np.log(prior), atol=1e-4 / prior.min())
    gain = accuracy(one.clone, digits.test, digits.test_labels) - accuracy(
        raw.clone, digits.test, digits.test_labels
    )
    assert gain > 0.05


def test_tau_zero_changes_nothing(digits) -> None:
    transfer_set, _ = lopsided(digits)
    base = plain(epochs=2)
    raw, zero = (
        learner.learn(transfer_set, 0).clone
        for learner in (base, CorrectedLearner(base=base, tau=0))
    )
    for ours, theirs in zip(zero.parameters(), raw.parameters(), strict=True):
        assert np.array_equal(ours.detach().numpy(), theirs.detach().numpy())


def test_tau_is_tuned_on_held_out_responses(digits) -> None:
    transfer_set, _ = lopsided(digits)
    base = plain("argmax", epochs=8)
    tuned = CorrectedLearner(base=base, tau=None).learn(transfer_set, 0)
    assert tuned.notes["tau"] in TAUS[1:]
    # The clone is trained on all responses.
    assert tuned.history == base.learn(transfer_set, 0).history
    small = TransferSet(digits.pool[:30], clean_responses(digits, 30))
    assert CorrectedLearner(base=plain(epochs=1), tau=None).learn(small, 0).notes["tau"] == 1


def test_what_a_filter_removes_is_not_in_the_prior(digits) -> None:
    """Behind a filter the correction sees what is left; before it, all queries."""
    clean = clean_responses(digits)
    responses = np.where(np.arange(700)[:, None] % 10 < 9, one_hot(np.full(700, 3)), clean)
    notes = {
        name: make_learner(name, "mlp", 3).learn(TransferSet(digits.pool, responses), 0).notes
        for name in ("corrected", "filtered-corrected")
    }
    assert notes["corrected"]["prior"][3] > 0.5
    assert notes["filtered-corrected"]["prior"][3] < 0.2


BRIEF = {"substitute": Substitute(surrogate="mlp", steps=2), "rounds": 2, "gan_steps": 2}
"""Whatever of it an attack has: the correction does not depend on how queries are chosen."""


@pytest.mark.parametrize(
    ("name", "learner"),
    [
        *((name, "corrected") for name in ATTACKS.built_in),
        *((name, "corrected:tuned") for name in ("copycat", "semi-supervised", "dfme")),
    ],
)
def test_every_attack_corrects_the_clone_that_it_trains(name: str, learner: str, digits) -> None:
    def run(how: str):
        attack = make_attack(name, make_learner(how, "mlp", 1), 3)
        attack = replace(attack, **{k: v for k, v in BRIEF.items() if hasattr(attack, k)})
        victim = Victim(digits.model, budget=130)
        pool = digits.pool[0].shape if ATTACKS[name].starts_from == "free" else digits.pool[:200]
        return attack.run(victim, pool)

    raw, corrected = run("soft"), run(learner)
    assert corrected.queries_used == raw.queries_used
    assert corrected.settings["learner"]["name"] == learner
    notes = corrected.settings["learner"]["notes"]
    head = f"{head_of(raw.clone)}.bias"
    before, after = raw.clone.state_dict(), corrected.clone.state_dict()
    for weights in before:
        if weights != head:
            assert np.array_equal(before[weights].numpy(), after[weights].numpy())
    moved = (before[head] - after[head]).numpy()
    prior = np.array(notes["prior"])
    # The prior is rounded to four decimals.
    assert np.allclose(moved, notes["tau"] * np.log(prior), atol=notes["tau"] * 1e-4 / prior.min())


def test_it_beats_a_clone_without_queries(digits) -> None:
    """On a pool with few images of most classes, and more than the uncorrected attacker gains."""
    _, rows = lopsided(digits)
    pool, learner = digits.pool[rows], plain(epochs=20)
    floor = zero_query_accuracy(pool, digits.test, digits.test_labels, 10, learner, seeds=2)
    scores = {
        tau: accuracy(
            make_attack("knockoff-random", CorrectedLearner(base=learner, tau=tau))
            .run(Victim(digits.model, "top1", budget=len(pool)), pool)
            .clone,
            digits.test,
            digits.test_labels,
        )
        for tau in (0.0, 1.0)
    }
    assert scores[1.0] > floor + 0.3
    assert scores[1.0] > scores[0.0] + 0.03


def test_refusals() -> None:
    with pytest.raises(InputError, match="tau=-1"):
        CorrectedLearner(tau=-1)
    with pytest.raises(InputError, match="validation"):
        CorrectedLearner(validation=0.8)
    with pytest.raises(InputError, match="corrected or not"):
        make_attack("semi-supervised", CorrectedLearner(base=make_learner("filtered")))
    assert make_attack("semi-supervised", CorrectedLearner(base=PlainLearner())).learner is not None


# The attacker with a handful of labelled images.
BASE = plain(epochs=12)
DERANGED = np.array([3, 4, 5, 6, 7, 8, 9, 0, 1, 2])


def own_images(digits, each: int = 10) -> TransferSet:
    """The last images of each class of the pool, with their true labels."""
    labels = digits.pool_labels
    rows = np.concatenate([np.flatnonzero(labels == k)[-each:] for k in range(10)])
    return TransferSet(digits.pool[rows], one_hot(labels[rows]))


def test_it_undoes_permuted_classes(digits) -> None:
    responses = clean_responses(digits, 500)[:, np.argsort(DERANGED)]  # class k is shown as k + 3
    learner = LabelledLearner(labelled=own_images(digits), base=BASE)
    learned = learner.learn(TransferSet(digits.pool[:500], responses), 0)
    assert learned.notes["permutation"] == np.argsort(DERANGED).tolist()
    assert accuracy(learned.clone, digits.test, digits.test_labels) > 0.8
    assert clone_accuracy(BASE, digits, responses) < 0.1


def test_it_leaves_right_labels_and_gains_from_the_images(digits) -> None:
    responses = clean_responses(digits, 40)
    learner = LabelledLearner(labelled=own_images(digits), base=BASE)
    learned = learner.learn(TransferSet(digits.pool[:40], responses), 0)
    assert learned.notes["permutation"] is None
    ours = accuracy(learned.clone, digits.test, digits.test_labels)
    assert ours > clone_accuracy(BASE, digits, responses) + 0.05
    assert learner.settings["labelled"] == 100


def test_a_spec_gives_it_ten_images_of_each_class(digits) -> None:
    spec = AttackSpec(
        learner="labelled-argmax", surrogate="mlp", pool="letters", budget=200, epochs=12
    )
    check(spec)
    queries = draw_queries(spec, "digits")
    assert queries.labelled is not None
    assert queries.labelled.responses.sum(axis=0).tolist() == [10] * 10
    assert draw_queries(AttackSpec(pool="in", budget=50), "digits").labelled is None
    outcome = run_attack(spec, TorchPredictor(digits.model), queries)
    assert outcome.result.queries_used == 200
    assert (
        outcome.row(
            victim="float", victim_seed=0, engine="torch", clone_accuracy=0.5, agreement=0.5
        ).treatment
        == "labelled-argmax"
    )
    learner = PlainLearner(surrogate="mlp", epochs=12)
    floor = zero_query_accuracy(
        queries.images, digits.test, digits.test_labels, 10, learner, seeds=2
    )
    assert accuracy(outcome.result.clone, digits.test, digits.test_labels) > floor + 0.2


def test_refusals_of_labels(digits) -> None:
    learner = LabelledLearner(labelled=own_images(digits), base=BASE)
    with pytest.raises(InputError, match="and 10 classes, but the queries"):
        learner.learn(TransferSet(digits.pool[:20], one_hot(np.arange(20) % 4, 4)), 0)
    with pytest.raises(InputError, match="share=1"):
        LabelledLearner(labelled=own_images(digits), share=1.0)
