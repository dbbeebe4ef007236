"""Experiments whose defence names a cost: what they record, and that nothing else changes."""

from dataclasses import replace

import pytest

from benchmarks.extraction import experiment as running
from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.plan import plan
from benchmarks.extraction.results import documents
from benchmarks.extraction.specs import ExperimentSpec
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.extraction import softmax
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.defences import LabelOnlyFallback, cost_of, make_defence

QUICK = {"surrogate": "mlp", "epochs": 1, "pool": "in", "budget": 50}
FIRST = next(c for c in plan("mini") if c.victim.variant == "qat")
SPEC = "reverse-sigmoid@0.2"
GATED = f"gate:0:0.05+{SPEC}"


def spec(defence: str, **changed: object) -> ExperimentSpec:
    return replace(FIRST, attack=replace(FIRST.attack, defence=defence, **QUICK | changed))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return VictimStore(tmp_path_factory.mktemp("extraction"))


@pytest.fixture(scope="module")
def found(store):
    """By defence."""
    names = ("none", "gate:0:0.05", "rounding:1", SPEC, GATED)
    return {name: run_experiment(spec(name), store) for name in names}


@pytest.mark.slow  # trains and attacks
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
    paid = found[GATED].defence_cost
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

    def shadow_pairs(victim, attack, supplied, store):
        assert attack.defence == found[SPEC].defence_cost["found"]["spec"]
        raise ReachedError

    monkeypatch.setattr(running, "shadow_pairs", shadow_pairs)
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
