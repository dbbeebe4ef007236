"""The paper scale is planned, not run: here its networks with tiny numbers, once through."""

from dataclasses import replace

import pytest
from small_folder import small_folder

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.scenarios import PAPER
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.files import read_json


@pytest.mark.slow
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
    assert (found.engine, found.model, found.surrogate) == (
        "integer",
        "resnet-18",
        "resnet-34",
    )
    assert 0 < found.queries_used <= 20
    assert 0 <= found.clone_accuracy <= 1
