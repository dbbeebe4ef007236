"""The paper scale is planned, not run: here its networks with tiny numbers, once through."""

from dataclasses import replace

import pytest
from small_folder import small_folder

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.plan import plan
from benchmarks.extraction.publish import results_page
from benchmarks.extraction.scenarios import PAPER
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.files import read_json
from fpga_flow.cli import main


def test_the_papers_victims_clones_and_budgets() -> None:
    sets = ("cifar10", "cifar100", "svhn", "gtsrb")
    assert tuple(scenario.recipe["dataset"] for scenario in PAPER) == sets
    experiments = plan("paper")
    assert {experiment.victim.model for experiment in experiments} == {"resnet-18"}
    first = experiments[0]
    assert (first.attack.surrogate, first.attack.budget) == ("resnet-34", 50_000)
    assert first.attack.pool == "dataset:cifar100"
    assert {experiment.victim.dataset for experiment in experiments} == set(sets)


def test_it_says_that_it_was_not_run(capsys) -> None:
    assert "nothing at the sizes of the papers (`--scale paper`)" in results_page({}, [])
    with pytest.raises(SystemExit):
        main(["bench", "extraction", "--help"])
    assert "sizes of the papers, not run" in " ".join(capsys.readouterr().out.split())


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
