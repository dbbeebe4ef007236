"""Cells that attack the integer engine behind an answer unit."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks.extraction.cells import run_cell
from benchmarks.extraction.collect import documents
from benchmarks.extraction.plan import plan
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.errors import InputError
from fpga_flow.engines import load_engine

QUICK = {"attack": "knockoff-random", "learner": "soft", "surrogate": "mlp", "epochs": 1}
FIRST = next(c for c in plan("mini") if c.victim.variant == "qat")
PLAIN = replace(FIRST, theft=replace(FIRST.theft, **QUICK, pool="in", budget=50))
GATED = replace(PLAIN, theft=replace(PLAIN.theft, answer="gated:1"))


def test_an_answer_is_part_of_name_and_key_only_where_it_is_set():
    assert "gated_1" in GATED.name
    assert (GATED.label, PLAIN.label) == ("qat+gated:1", "qat")
    assert GATED.key != PLAIN.key
    assert "answer" not in PLAIN.theft.record
    assert GATED.theft.record == asdict(GATED.theft)
    assert GATED.seeded(1, 2).theft.answer == "gated:1"
    with pytest.raises(InputError, match="a float victim has none"):
        replace(GATED, victim=GATED.victim.reference)


def test_a_cell_measures_thief_and_victim_behind_the_answer_unit(tmp_path):
    store = VictimStore(tmp_path)
    plain, gated = run_cell(PLAIN, store), run_cell(GATED, store)
    flat = run_cell(replace(GATED, theft=replace(GATED.theft, answer="posterior:1")), store)
    assert (plain["victim"], gated["victim"]) == ("qat", "qat+gated:1")
    assert gated["spec"]["theft"]["answer"] == "gated:1"
    assert "answer" not in plain["spec"]["theft"]
    assert gated["pool_sha256"] == plain["pool_sha256"]
    # The clone learned from other answers.
    assert gated["history"] != plain["history"]
    images, labels = (t.numpy() for t in store.data(PLAIN.victim, "test"))
    train = store.data(PLAIN.victim, "train")[0][:1000].numpy() / np.float32(255)
    for cell, name in ((gated, "gated:1"), (flat, "posterior:1")):
        file = store.folder(PLAIN.victim) / "model.onnx"
        chip = load_engine(file, answer=name, calibration=train)
        guesses = chip.predict(images / np.float32(255)).argmax(axis=1)
        assert cell["victim_accuracy"] == (guesses == labels).mean()
    # Tables keep them apart: another victim, with its own accuracy.
    (found,) = documents([plain, gated]).values()
    accuracies = {row.victim: row.victim_accuracy for row in found.summary}
    assert accuracies == {
        "qat": plain["victim_accuracy"],
        "qat+gated:1": gated["victim_accuracy"],
    }
