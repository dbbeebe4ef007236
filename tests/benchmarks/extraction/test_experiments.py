"""Experiments of the benchmark in miniature: what is trained, attacked and recorded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clones import zero_query_accuracy
from fake_sets import small_folder
from PIL import Image

from benchmarks.extraction import experiment as running
from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.plan import plan
from benchmarks.extraction.results import documents
from benchmarks.extraction.scenarios import PAPER
from benchmarks.extraction.shadows import shadow_pairs
from benchmarks.extraction.specs import ExperimentSpec, VictimSpec
from benchmarks.extraction.victims import OutOfTimeError, VictimStore
from divqat_brevitas.data import cache, load, query_pool
from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.extraction import PlainLearner, softmax
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.attack_spec import NO_POOL, AttackSpec, QuerySet
from divqat_brevitas.extraction.defences import LabelOnlyFallback, cost_of, make_defence
from divqat_brevitas.files import read_json
from fpga_flow.engines import load_engine

QAT = [c for c in plan("mini") if c.victim.variant == "qat"]
FIRST = QAT[0]
QUICK = {"surrogate": "mlp", "epochs": 1, "pool": "in", "budget": 50}
PLAIN = replace(FIRST, attack=replace(FIRST.attack, attack="knockoff-random", **QUICK))
GATED = replace(PLAIN, attack=replace(PLAIN.attack, answer="gated:1"))
pytestmark = pytest.mark.slow  # trains victims and clones


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return VictimStore(tmp_path_factory.mktemp("extraction"))


@pytest.fixture(scope="module")
def floor():
    """What the attacker has without a query: its images and its network, no label."""
    images = query_pool("in", "digits", 200, 0).images
    learner = PlainLearner(epochs=5)
    return zero_query_accuracy(images, *load("digits", "test"), 10, learner)


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
    assert (experiment.engine, experiment.queries_used, experiment.budget) == ("integer", 200, 200)
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


# The first experiment of an attack: no defence, answers used as they come.
ATTACKING = {experiment.attack.attack: experiment for experiment in reversed(QAT)}


@pytest.mark.parametrize("attack", ["knockoff-averaged", "jbda", "dfme"])
def test_attacks_beat_a_clone_without_queries(attack, store, floor):
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


# The integer engine behind an answer unit


def test_an_answer_is_part_of_name_and_key_only_where_it_is_set():
    assert "gated_1" in GATED.name
    assert (GATED.label, PLAIN.label) == ("qat+gated:1", "qat")
    assert GATED.key != PLAIN.key
    assert GATED.seeded(1, 2).attack.answer == "gated:1"
    with pytest.raises(InputError, match="a float victim has none"):
        replace(GATED, victim=GATED.victim.reference)


def test_an_experiment_measures_attacker_and_victim_behind_the_answer_unit(store):
    plain, gated = run_experiment(PLAIN, store), run_experiment(GATED, store)
    flat = run_experiment(replace(GATED, attack=replace(GATED.attack, answer="posterior:1")), store)
    assert (plain.victim, gated.victim) == ("qat", "qat+gated:1")
    assert gated.spec["attack"]["answer"] == "gated:1"
    assert plain.spec["attack"]["answer"] == "logits"
    assert gated.pool_sha256 == plain.pool_sha256
    # The clone learned from other answers.
    assert gated.history != plain.history
    images, labels = (t.numpy() for t in store.data(PLAIN.victim, "test"))
    train = store.data(PLAIN.victim, "train")[0][:1000].numpy() / np.float32(255)
    for experiment, name in ((gated, "gated:1"), (flat, "posterior:1")):
        file = store.folder(PLAIN.victim) / "model.onnx"
        chip = load_engine(file, answer=name, calibration=train)
        guesses = chip.predict(images / np.float32(255)).argmax(axis=1)
        assert experiment.victim_accuracy == (guesses == labels).mean()
    # Tables keep them apart: another victim, with its own accuracy.
    (found,) = documents([plain, gated]).values()
    accuracies = {row.victim: row.victim_accuracy for row in found.summary}
    assert accuracies == {"qat": plain.victim_accuracy, "qat+gated:1": gated.victim_accuracy}


# Defences that name a cost

SPEC = "reverse-sigmoid@0.2"
GATE = f"gate:0:0.05+{SPEC}"


def spec(defence: str, **changed: object) -> ExperimentSpec:
    return replace(FIRST, attack=replace(FIRST.attack, defence=defence, **QUICK | changed))


@pytest.fixture(scope="module")
def found(store):
    """By defence."""
    names = ("none", "gate:0:0.05", "rounding:1", SPEC, GATE)
    return {name: run_experiment(spec(name), store) for name in names}


def test_an_experiment_records_strength_and_cost_on_validation_and_pool(found, store):
    experiment = found[SPEC]
    paid = experiment.defence_cost
    assert experiment.defence == SPEC
    assert SPEC in experiment.name
    assert paid["found"]["cost"]["l1"] == pytest.approx(0.2, rel=0.02)
    assert (paid["found"]["target"], paid["found"]["shortfall"]) == (0.2, "")
    made = make_defence(paid["found"]["spec"])
    assert experiment.settings["defence"] == made.name
    victim = store.get(FIRST.victim)
    images = to_float(store.data(FIRST.victim, "test")[0].numpy())
    assert paid["l1"] == cost_of(made, images, softmax(victim.test_logits)).l1
    assert 0 < paid["pool"]["l1"] != paid["l1"]
    again = run_experiment(spec(SPEC), VictimStore(store.work))
    assert again.model_copy(update={"seconds": {}}) == experiment.model_copy(update={"seconds": {}})


def test_behind_the_gate_costs_are_on_top_of_it(found, store):
    paid = found[GATE].defence_cost
    assert paid["found"]["spec"].startswith("gate:0:0.05+reverse-sigmoid:")
    last = make_defence(paid["found"]["spec"].partition("+")[2])
    images = to_float(store.data(FIRST.victim, "test")[0].numpy())
    gated = LabelOnlyFallback().perturb(images, softmax(store.get(FIRST.victim).test_logits))
    assert paid["l1"] == cost_of(last, images, gated).l1


def test_a_cost_out_of_reach_is_on_record(store):
    paid = run_experiment(spec("mad-argmax@1.9"), store).defence_cost
    # It keeps the label, so that no answer moves by 2.
    assert (paid["found"]["spec"], paid["found"]["target"]) == ("mad-argmax:2", 1.9)
    assert paid["found"]["cost"]["l1"] < 1.9 * 0.98
    assert "out of reach" in paid["found"]["shortfall"]


def test_what_names_no_cost_is_as_before(found):
    assert found["none"].defence_cost is None
    assert set(found["gate:0:0.05"].defence_cost) == {"l1", "labels_changed"}
    assert set(found["rounding:1"].defence_cost) == {"l1", "labels_changed", "pool"}
    assert spec("none").attack.defence == "none"


def test_an_attacker_with_shadows_knows_the_strength(store, found, monkeypatch):
    class ReachedError(Exception):
        pass

    def reached(victim, attack, supplied, _store):
        assert attack.defence == found[SPEC].defence_cost["found"]["spec"]
        raise ReachedError

    monkeypatch.setattr(running, "shadow_pairs", reached)
    with pytest.raises(ReachedError):
        run_experiment(spec(SPEC, learner="recovery"), store)


def test_results_show_the_cost_on_validation_and_split_the_gate_off(found):
    (results,) = documents(list(found.values())).values()
    rows = {(r.victim, r.defence): r.model_extra for r in results.attacks}
    assert set(rows) == {
        ("qat", "none"),
        ("qat", "rounding:1"),
        ("qat", SPEC),
        ("qat+gate", "none"),
        ("qat+gate", SPEC),
    }
    for victim in ("qat", "qat+gate"):
        assert rows[victim, SPEC]["defence_l1"] == pytest.approx(0.2, rel=0.02)
    assert rows["qat", "rounding:1"]["defence_l1"] > 0


def test_a_shadow_of_a_decoy_with_photographs_takes_coloured_ones(tmp_path: Path, monkeypatch):
    """Its labelled set is grey, the victim's images are not."""
    monkeypatch.setattr("divqat_brevitas.training.reject_class._COUNT", 50)
    for name in ("landscapes", "backgrounds"):
        picture = tmp_path / f"{name}.png"
        Image.linear_gradient("L").convert("RGB").save(picture)
        with cache.staging(tmp_path, name) as work:
            cache.store(tmp_path, name, {"p.png": picture.read_bytes()}, work)
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), np.uint8)
    spec = VictimSpec(
        dataset="digits",
        model="digits-cnn",
        variant="divqat-decoy-photos",
        float_epochs=1,
        quant_epochs=1,
    )
    attack = AttackSpec(attack="knockoff-random", learner="recovery", pool="photos", budget=6)
    queries = QuerySet("photos", "out", images, (3, 8, 8))
    pairs = shadow_pairs(spec, attack, queries, VictimStore(tmp_path / "work", root=tmp_path))
    assert pairs.defended.shape == pairs.undefended.shape == (6, 10)


def test_a_papers_victim_is_trained_exported_lowered_and_attacked(tmp_path) -> None:
    recipe = PAPER[0].recipe | {
        "dataset": small_folder(tmp_path / "pictures"),
        "float_epochs": 1,
        "quant_epochs": 1,
        "batch_size": 24,
    }
    tiny = replace(
        PAPER[0],
        recipe=recipe,
        pools=("in",),
        attack=PAPER[0].attack | {"epochs": 1},
        budgets=(20,),
    )
    experiment = tiny.experiment("qat")
    store = VictimStore(tmp_path / "work")
    found = run_experiment(experiment, store)
    record = read_json(store.folder(experiment.victim) / "victim.json")
    assert record["parity"]["inputs"] > 0
    assert record["parity"]["mismatches"] == 0
    assert 11.1e6 < record["parameters"] < 11.3e6
    assert (found.engine, found.model, found.surrogate) == ("integer", "resnet-18", "resnet-34")
    assert 0 < found.queries_used <= 20
    assert 0 <= found.clone_accuracy <= 1
