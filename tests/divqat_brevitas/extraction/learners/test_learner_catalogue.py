import json

import numpy as np
import pytest
from planted import rolled_pairs

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import SurrogateTraining, TorchPredictor
from divqat_brevitas.extraction.learners import (
    LEARNERS,
    ShadowPairs,
    make_learner,
    strongest_learners,
)
from divqat_brevitas.extraction.learners.base import TransferSet

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
