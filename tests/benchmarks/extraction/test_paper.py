"""The paper scale is planned, not run: here its networks with tiny numbers, once through."""

from dataclasses import replace

import pytest
from small_folder import small_folder

from benchmarks.extraction.arenas import PAPER
from benchmarks.extraction.cells import run_cell
from benchmarks.extraction.plan import plan
from benchmarks.extraction.tables import page
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.files import read_json
from fpga_flow.cli import main


def test_the_papers_victims_clones_and_budgets() -> None:
    sets = ("cifar10", "cifar100", "svhn", "gtsrb")
    assert tuple(arena.recipe["dataset"] for arena in PAPER) == sets
    cells = plan("paper")
    assert {cell.victim.model for cell in cells} == {"resnet-18"}
    first = cells[0]
    assert (first.theft.surrogate, first.theft.budget) == ("resnet-34", 50_000)
    assert first.theft.pool == "dataset:cifar100"
    assert {cell.victim.dataset for cell in cells} == set(sets)


def test_it_says_that_it_was_not_run(capsys) -> None:
    assert "nothing at the sizes of the papers (`--scale paper`)" in page({})
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
        PAPER[0], recipe=recipe, pools=("in",), theft=PAPER[0].theft | {"epochs": 1}, budgets=(20,)
    )
    cell = tiny.cell("qat")
    store = VictimStore(tmp_path / "work")
    found = run_cell(cell, store)
    record = read_json(store.folder(cell.victim) / "victim.json")
    assert record["parity"]["inputs"] > 0
    assert record["parity"]["mismatches"] == 0
    assert 11.1e6 < record["parameters"] < 11.3e6
    assert (found["engine"], found["model"], found["surrogate"]) == (
        "integer",
        "resnet-18",
        "resnet-34",
    )
    assert 0 < found["queries_used"] <= 20
    assert 0 <= found["clone_accuracy"] <= 1
