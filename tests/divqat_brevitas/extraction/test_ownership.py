"""The fingerprint of responses, its commitment, and the ownership test on clones and others."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction import (
    KnockoffNets,
    Victim,
    accuracy,
    build_surrogate,
    train_surrogate,
)
from divqat_brevitas.extraction.ownership import (
    Fingerprint,
    FingerprintedResponses,
    TriggerLog,
    Triggers,
    commit,
    false_claims,
    fine_tuned,
    fingerprint_of,
    open_commitment,
    ownership_test,
    pruned,
    requantized,
)
from divqat_brevitas.extraction.ownership.significance import labels_test

SECRET, OTHER = "5e" * 32, "0f" * 32
SHARE = 0.03  # 700 queries have few changed responses; at the default share of 0.005, about 3


@pytest.fixture(scope="module")
def stolen(digits):
    """A clone from labels only of in-distribution images, and the owner's log."""
    marking = FingerprintedResponses(Fingerprint(SECRET, 10, SHARE))
    victim = Victim(digits.model, "top1", len(digits.pool), marking)
    clone = KnockoffNets(surrogate="compact", seed=0, epochs=20).run(victim, digits.pool).clone
    return clone, marking


def independent_of(digits, seed):
    """A network trained on the attacker's images with their true labels."""
    network = build_surrogate("mlp", (1, 8, 8), 10, seed)
    targets = np.eye(10, dtype=np.float32)[digits.pool_labels]
    train_surrogate(network, digits.pool, targets, epochs=4, seed=seed)
    return network


def test_a_clone_from_labels_is_recognised_and_not_with_another_secret(digits, stolen):
    clone, marking = stolen
    assert accuracy(clone, digits.test, digits.test_labels) > 0.9  # it is a useful clone
    result = ownership_test(marking.fingerprint, marking.log.triggers(), clone)
    assert result.p_value < 1e-6
    assert result.rate > 0.5 > result.null_rate
    # The log gives nothing away: with another secret its images are no triggers but by chance.
    every = Triggers(digits.pool, np.zeros(len(digits.pool), np.int64))
    wrong = Fingerprint(OTHER, 10, SHARE)
    assert ownership_test(wrong, every, clone).p_value > 1e-3


def test_removal_attempts_leave_the_fingerprint(digits, stolen):
    clone, marking = stolen
    own = digits.test[:100], digits.test_labels[:100]
    for changed in (pruned(clone, 0.3), requantized(clone, 4), fine_tuned(clone, *own, epochs=2)):
        assert ownership_test(marking.fingerprint, marking.log.triggers(), changed).p_value < 1e-3


def test_independent_networks_do_not_reach_significance(digits, stolen):
    _, marking = stolen
    networks = [digits.model, *(independent_of(digits, seed) for seed in range(3))]
    own = digits.model(torch.from_numpy(digits.pool / np.float32(255))).argmax(1)
    own = own.numpy()
    labels = [
        network(torch.from_numpy(digits.pool / np.float32(255))).argmax(1).numpy()
        for network in networks
    ]
    p_values = []
    for number in range(100):
        fingerprint = Fingerprint(f"{number:064x}", 10, SHARE)
        marked, secret = fingerprint.read(digits.pool / np.float32(255), own)
        p_values += [labels_test(own[marked], secret[marked], one[marked], 10) for one in labels]
    assert false_claims([result.p_value for result in p_values], 1e-3) <= 1e-3
    assert ownership_test(marking.fingerprint, marking.log.triggers(), digits.model).p_value == 1


def test_the_p_value_is_calibrated_for_a_network_of_random_labels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4000, 1, 8, 8), np.uint8) / np.float32(255)
    own, suspect = rng.integers(0, 10, (2, 4000))
    p_values = []
    for number in range(400):
        marked, secret = Fingerprint(f"{number:064x}", 10, 0.02).read(images, own)
        p_values.append(labels_test(own[marked], secret[marked], suspect[marked], 10).p_value)
    for level in (0.05, 0.2, 0.5):
        # At most the level, up to three standard deviations of 400 draws.
        assert np.mean(np.array(p_values) <= level) <= level + 3 * np.sqrt(level / 400)
    assert np.mean(np.array(p_values) <= 0.5) > 0.25  # and not idle


def test_an_opening_is_accepted_only_as_it_was_committed():
    commitment, opening = commit("ab" * 32, classes=10, secret=SECRET)
    assert open_commitment(commitment, opening) == fingerprint_of(opening)
    assert SECRET not in str(commitment)
    for name, value in (("secret", OTHER), ("share", 0.4), ("classes", 11)):
        changed = copy.deepcopy(opening)
        changed["fingerprint"][name] = value
        with pytest.raises(CheckFailedError, match="does not belong to this commitment"):
            open_commitment(commitment, changed)
    with pytest.raises(CheckFailedError):
        open_commitment(commitment, opening | {"model_sha256": "cd" * 32})
    with pytest.raises(InputError, match="no commitment"):
        open_commitment(opening, opening)
    again, _ = commit("ab" * 32, classes=10, secret=SECRET)
    assert again["sha256"] != commitment["sha256"]  # salted: the same record cannot be guessed


def test_the_log_outlives_a_restart_and_holds_each_image_once(tmp_path):
    file = tmp_path / "triggers.jsonl"
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    marking = FingerprintedResponses(Fingerprint(SECRET, 10, 0.3), TriggerLog(file))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    victim = Victim(network, "soft", 200, marking)
    first = victim.query(images / np.float32(255))
    assert (victim.query(images / np.float32(255)) == first).all()
    triggers = TriggerLog(file).triggers()
    assert 0 < len(triggers) < 60
    assert (triggers.images == marking.log.triggers().images).all()
    assert (triggers.own == marking.log.triggers().own).all()
    marked, _ = marking.fingerprint.read(images / np.float32(255), first.argmax(1))
    assert len(triggers) == marked.sum()
    file.write_text('{"image": "AA=="}\n', encoding="utf-8")
    with pytest.raises(InputError, match="no file of triggers"):
        TriggerLog(file)


def test_a_reject_output_keeps_its_response():
    """Outlier responses have their own label; only classes are changed."""
    probabilities = np.tile(np.float32([0.1, 0.1, 0.1, 0.7]), (50, 1))
    images = np.random.default_rng(0).random((50, 1, 8, 8), np.float32)
    marking = FingerprintedResponses(Fingerprint(SECRET, 3, 0.5))
    assert (marking.perturb(images, probabilities) == probabilities).all()


@pytest.mark.parametrize("secret", ["", "zz" * 32, "AB" * 32])
def test_a_malformed_secret_is_refused(secret):
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        Fingerprint(secret, 10)
