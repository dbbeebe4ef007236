import json

import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import PlainLearner, TransferSet, Victim
from divqat_brevitas.extraction.attacks.knockoff import AveragedQueries

LEARNER = PlainLearner(surrogate="mlp", epochs=1)


class KeepingLearner:
    """Shows what the attack hands over."""

    name, surrogate, settings = "keeping", "mlp", {"a": 1}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch=None):
        self.transfer_set = transfer_set
        return LEARNER.learn(transfer_set, seed, on_epoch)


class NoisyDefence:
    """A randomised defence: every response drawn anew around the clean one."""

    name = "noisy"
    settings: dict[str, float] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def perturb(self, images, probabilities):
        noise = self.rng.dirichlet(np.ones(10), len(probabilities))
        return (0.3 * probabilities + 0.7 * noise).astype(np.float32)


@pytest.fixture
def pool() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (150, 1, 8, 8), np.uint8)


def test_versions_fit_the_budget_and_are_averaged(make_spy, pool) -> None:
    spy, learner = make_spy(), KeepingLearner()
    victim = Victim(spy, budget=100)
    result = AveragedQueries(learner=learner, seed=1).run(victim, pool)
    assert result.queries_used == victim.queries_used == 99
    asked = np.concatenate(spy.asked).reshape(33, 3, 1, 8, 8)
    chosen = pool[result.indices.reshape(33, 3)]
    assert np.array_equal(asked[:, 0], chosen[:, 0] / np.float32(255))
    assert len(np.unique(result.indices)) == 33
    assert np.array_equal(chosen[:, 0], chosen[:, 2])
    assert not np.array_equal(asked[:, 1], asked[:, 2])
    assert all(len(np.unique(three, axis=0)) == 3 for three in asked)
    # What was learnt from: the images themselves with the means of their responses.
    assert np.array_equal(learner.transfer_set.images, chosen[:, 0])
    responses = Victim(make_spy()).query(asked.reshape(99, 1, 8, 8)).reshape(33, 3, -1)
    np.testing.assert_allclose(
        learner.transfer_set.responses, responses.mean(axis=1), rtol=1e-6
    )  # float32
    settings = json.loads(json.dumps(result.settings))
    assert (settings["attack"], settings["copies"]) == ("knockoff-averaged", 3)
    assert settings["learner"]["name"] == "keeping"


def test_averages_out_a_random_defence(digits) -> None:
    def wrong(copies: int) -> float:
        learner = KeepingLearner()
        victim = Victim(digits.model, budget=200 * copies, defence=NoisyDefence())
        attack = AveragedQueries(learner=learner, copies=copies, shift=0, noise=0.01)
        result = attack.run(victim, digits.pool)
        images = digits.pool[result.indices[::copies]] / np.float32(255)
        clean = Victim(digits.model).query(images).argmax(axis=1)
        return float((learner.transfer_set.responses.argmax(axis=1) != clean).mean())

    assert wrong(copies=8) < 0.5 * wrong(copies=1)


def test_refusals_cost_no_query(spy, pool) -> None:
    victim = Victim(spy, budget=5)
    with pytest.raises(InputError, match="5 queries in 3 copies"):
        AveragedQueries(learner=LEARNER).run(victim, pool)
    assert victim.queries_used == 0
    for bad in ({"copies": 0}, {"shift": -1}, {"noise": float("nan")}, {"seed": -1}):
        with pytest.raises(InputError, match="must be"):
            AveragedQueries(**bad)
