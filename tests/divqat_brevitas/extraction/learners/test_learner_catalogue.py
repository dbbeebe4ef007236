import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import rolled_pairs

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, SurrogateTraining, TorchPredictor, TransferSet
from divqat_brevitas.extraction.learners.catalogue import LEARNERS, make_learner, strongest_learners
from divqat_brevitas.extraction.learners.filtered import AugmentedLearner, FilteredLearner
from divqat_brevitas.extraction.learners.recovery import ShadowPairs

ALL = [*LEARNERS, *strongest_learners(shadow=True), "topk:2", "filtered-pretrained-argmax"]


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
        learner = make_learner(name, "mlp", 1, SurrogateTraining(batch_size=16), shadow=pairs)
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
