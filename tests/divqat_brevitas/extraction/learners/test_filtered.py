import json

import numpy as np
import pytest
from planted import clean_responses, clone_accuracy, one_hot, plain

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TransferSet
from divqat_brevitas.extraction.learners.filtered import FilteredLearner, find_ood_targets
from divqat_brevitas.extraction.oracles import show_top1


def defended(digits, share: float, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clean answers with a share replaced by targets, and which were."""
    responses = clean_responses(digits)
    hit = np.random.default_rng(0).random(len(responses)) < share
    return np.where(hit[:, None], targets, responses).astype(np.float32), hit


def test_constant_ood_target_is_found_and_left_out(digits) -> None:
    constant = 0.9 * one_hot(np.full(700, 3)) + np.float32(0.01)
    responses, hit = defended(digits, 0.8, constant)
    assert np.array_equal(
        find_ood_targets(responses), hit
    )  # its exact profile tells it from honest 3s
    assert clone_accuracy(plain(), digits, responses) < 0.3
    assert clone_accuracy(FilteredLearner(base=plain(epochs=30)), digits, responses) > 0.75


def test_noisy_constant_ood_target_is_found_by_its_class(digits) -> None:
    noise = np.random.default_rng(1).dirichlet(np.ones(10), 700)
    responses, hit = defended(digits, 0.8, 0.8 * one_hot(np.full(700, 3)) + 0.2 * noise)
    found = find_ood_targets(responses)
    honest_threes = ~hit & (responses.argmax(axis=1) == 3)
    assert np.array_equal(found, hit | honest_threes)


def test_wrong_class_ood_target_with_one_profile_is_found(digits) -> None:
    wrong = (clean_responses(digits).argmax(axis=1) + 1) % 10
    responses, hit = defended(digits, 0.7, 0.9 * one_hot(wrong) + np.float32(0.01))
    assert np.array_equal(find_ood_targets(responses), hit)
    assert clone_accuracy(plain(), digits, responses) < 0.3
    filtered = FilteredLearner(base=plain("argmax", epochs=30))
    assert clone_accuracy(filtered, digits, responses) > 0.75
    assert filtered.name == "filtered-argmax"


def test_unmasked_takes_a_mixed_ood_target_off(digits) -> None:
    clean = clean_responses(digits)
    mixed = 0.8 * one_hot(np.full(700, 3)) + 0.2 * clean
    responses, _ = defended(digits, 0.95, mixed)
    assert clone_accuracy(plain(), digits, responses) < 0.3
    learner = FilteredLearner(base=plain(), unmask=True)
    assert clone_accuracy(learner, digits, responses) > 0.75
    assert learner.name == "unmasked"


def test_uninformative_ood_target_is_found(digits) -> None:
    responses, hit = defended(digits, 0.5, np.full((700, 10), 0.1, np.float32))
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
