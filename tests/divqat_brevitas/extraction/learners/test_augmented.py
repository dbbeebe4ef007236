"""Shifted and mirrored clones: another training of whatever learner comes after."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, SurrogateTraining, TransferSet
from divqat_brevitas.extraction.learners import AugmentedLearner, FilteredLearner, make_learner

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


def test_refusals() -> None:
    with pytest.raises(InputError, match="shift must be 1 or more"):
        AugmentedLearner(shift=0)
