"""Experiments that attack the integer engine behind an answer unit."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.plan import plan
from benchmarks.extraction.results import documents
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.errors import InputError
from fpga_flow.engines import load_engine

QUICK = {"attack": "knockoff-random", "learner": "soft", "surrogate": "mlp", "epochs": 1}
FIRST = next(c for c in plan("mini") if c.victim.variant == "qat")
PLAIN = replace(FIRST, attack=replace(FIRST.attack, **QUICK, pool="in", budget=50))
GATED = replace(PLAIN, attack=replace(PLAIN.attack, answer="gated:1"))


def test_an_answer_is_part_of_name_and_key_only_where_it_is_set():
    assert "gated_1" in GATED.name
    assert (GATED.label, PLAIN.label) == ("qat+gated:1", "qat")
    assert GATED.key != PLAIN.key
    assert GATED.seeded(1, 2).attack.answer == "gated:1"
    with pytest.raises(InputError, match="a float victim has none"):
        replace(GATED, victim=GATED.victim.reference)


@pytest.mark.slow  # trains and attacks
def test_a_experiment_measures_attacker_and_victim_behind_the_answer_unit(tmp_path):
    store = VictimStore(tmp_path)
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
    assert accuracies == {
        "qat": plain.victim_accuracy,
        "qat+gated:1": gated.victim_accuracy,
    }
