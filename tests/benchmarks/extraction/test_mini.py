"""The benchmark in miniature: every attack against a victim without a defence."""

import pytest
import torch
from zero_query import zero_query_accuracy

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.plan import plan
from benchmarks.extraction.victims import OutOfTimeError, VictimStore
from divqat_brevitas.data import load, query_pool
from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.extraction import PlainLearner
from divqat_brevitas.extraction.attack_spec import NO_POOL
from divqat_brevitas.files import read_json

QAT = [c for c in plan("mini") if c.victim.variant == "qat"]
FIRST = QAT[0]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("extraction")


@pytest.fixture(scope="module")
def store(work):
    return VictimStore(work)


@pytest.fixture(scope="module")
def floor():
    """What the attacker has without a query: its images and its network, no label."""
    images = query_pool("in", "digits", 200, 0).images
    learner = PlainLearner(epochs=5)
    return zero_query_accuracy(images, *load("digits", "test"), 10, learner)


@pytest.mark.slow  # trains and attacks
def test_an_experiment_says_what_was_run_on_what(store):
    experiment = run_experiment(FIRST, store)
    victim = read_json(store.folder(FIRST.victim) / "victim.json")
    assert experiment.name == FIRST.name
    assert experiment.key == FIRST.key
    assert experiment.victim_accuracy == victim["test_accuracy"] > 0.9
    assert experiment.victim_record.sha256 == victim["sha256"]
    assert set(victim["sha256"]) == {"weights.safetensors", "model.onnx"}
    assert victim["parity"]["mismatches"] == 0
    assert victim["utility"]["adversarial"]["pgd-8/255"]["images"] > 0
    assert (experiment.engine, experiment.queries_used, experiment.budget) == (
        "integer",
        200,
        200,
    )
    assert len(experiment.pool_sha256) == 64
    assert experiment.threads == torch.get_num_threads() == 1
    assert {"torch", "brevitas", "numpy", "divqat"} <= set(experiment.versions)
    # The same experiment again: equal but for the seconds.
    again = run_experiment(FIRST, store)
    assert again.model_copy(update={"seconds": {}}) == experiment.model_copy(update={"seconds": {}})


def test_a_changed_victim_is_refused_not_attacked(store):
    store.get(FIRST.victim)
    fresh = VictimStore(store.work)
    file = store.folder(FIRST.victim) / "model.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole + b"\0")
    try:
        with pytest.raises(CheckFailedError, match="not what was trained"):
            run_experiment(FIRST, fresh)
    finally:
        file.write_bytes(whole)


def test_training_out_of_time_continues_to_the_same_weights(store, tmp_path):
    spec = FIRST.victim.reference
    calls = iter([False, True])
    with pytest.raises(OutOfTimeError):
        VictimStore(tmp_path, out_of_time=lambda: next(calls)).get(spec)
    assert not VictimStore(tmp_path).ready(spec)
    continued = VictimStore(tmp_path).get(spec).record
    assert len(continued["history"]) == spec.float_epochs
    assert continued["sha256"] == store.get(spec).record["sha256"]


# The first experiment of each attack: no defence, answers used as they come.
ATTACKING = {experiment.attack.attack: experiment for experiment in reversed(QAT)}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKING)
def test_every_attack_beats_a_clone_without_queries(attack, store, floor):
    experiment = ATTACKING[attack]
    assert (experiment.attack.learner, experiment.attack.defence, experiment.attack.oracle) == (
        "soft",
        "none",
        "soft",
    )
    found = run_experiment(experiment, store)
    assert found.clone_accuracy > floor
    assert 0 < found.queries_used <= found.budget
    assert (found.pool == NO_POOL) == (found.pool_images == 0)
