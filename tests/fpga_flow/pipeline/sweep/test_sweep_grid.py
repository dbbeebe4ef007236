import json
from pathlib import Path

import pytest

from divqat_brevitas.errors import InputError
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.sweep_grid import check_tasks, read_sweep


@pytest.fixture
def sweep(tmp_path):
    def write(text):
        file = tmp_path / "sweep.toml"
        file.write_text(text)
        return read_sweep(file)

    return write


GRID = """
preset = "smoke"
skip = ["simulate", "compile"]
[base]
train.float_epochs = 3
[grid]
model.bits = ["w2a2", "w4a4"]
run.seeds = [0, [1, 2]]
[[task]]
model.bits = "w8a8"
attack.pools = "mix:in:0.05,wallpapers"
divqat.weight = "none"
"""


def test_a_grid_is_every_combination_and_single_tasks_follow(sweep):
    tasks = sweep(GRID)
    assert [task.name for task in tasks] == [
        "model.bits-w2a2_run.seeds-0",
        "model.bits-w2a2_run.seeds-1-2",
        "model.bits-w4a4_run.seeds-0",
        "model.bits-w4a4_run.seeds-1-2",
        "model.bits-w8a8_attack.pools-mix-in-0.05-wallpapers_divqat.weight-none",
    ]
    assert [task.config.model.bits for task in tasks] == ["w2a2", "w2a2", "w4a4", "w4a4", "w8a8"]
    assert [task.config.run.seeds for task in tasks[:2]] == [(0,), (1, 2)]
    assert tasks[4].config.attack.pools == ("mix:in:0.05,wallpapers",)
    assert {task.config.train.float_epochs for task in tasks} == {3}
    assert {task.config.run.threads for task in tasks} == {1}  # the preset's
    assert {task.skip for task in tasks} == {("compile", "simulate")}


def test_a_task_is_known_by_its_settings_and_not_by_its_place(sweep):
    before = {task.key: task.folder for task in sweep(GRID)}
    again = sweep(GRID.replace('["w2a2", "w4a4"]', '["w4a4", "w3a3", "w2a2"]'))
    after = {task.key: task.folder for task in again}
    assert len(after) == 7
    assert before.items() <= after.items()
    # A default written out is the same task; another value, or other stages, another.
    same = sweep(GRID.replace("[base]", "[base]\ntrain.batch_size = 128"))
    assert {task.key for task in same} == set(before)
    other = sweep(GRID.replace("float_epochs = 3", "float_epochs = 4"))
    assert not {task.key for task in other} & set(before)
    fewer = sweep(GRID.replace('"simulate", "compile"', '"compile"'))
    assert not {task.key for task in fewer} & set(before)


def test_files_are_beside_the_sweep_and_their_content_counts(sweep, tmp_path):
    (tmp_path / "my.toml").write_text('[data]\nname = "digits"\nroot = "there"\n')
    text = 'config = "my.toml"\n[grid]\ncompile.folding = ["folding.json"]\n'
    (tmp_path / "folding.json").write_text("{}")
    task = sweep(text)[0]
    assert task.config.data.root == tmp_path / "there"
    assert task.config.compile.folding == tmp_path / "folding.json"
    (tmp_path / "folding.json").write_text(json.dumps({"Defaults": {}}))
    assert sweep(text)[0].key != task.key


def test_a_tasks_name_fits_a_run_and_its_settings_survive_the_way(sweep):
    for task in sweep(GRID):
        Config.model_validate(task.config.model_dump())  # run.name is checked here
        assert task.config.run.name == task.folder
        assert Config.model_validate_json(task.config.model_dump_json()) == task.config


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[grid]\nmodel.bit = ['w2a2']", "did you mean 'bits'"),
        ("[grid]\nmodle.bits = ['w2a2']", "did you mean 'model'"),
        ("[grid]\n'model.bits' = ['w2a2']", "write model.bits without quotes"),
        ("[grid]\nmodel.bits = 'w2a2'", "model.bits must be a list of values"),
        ("[grid]\nmodel.bits = []", "model.bits must be a list of values"),
        ("[grid]\nmodel = ['w2a2']", "model is a section"),
        ("[grid]\nmodel.bits = ['w2a2', 'w9a9']", "task (model.bits = 'w9a9')"),
        ("[grid]\nrun.seeds = [0, 0]", "equal settings"),
        ("[task]\nmodel.bits = 'w2a2'", "two brackets"),
        ("preset = 'smoke'", "has no task"),
        ("preset = 'smok'\n[[task]]\n", "did you mean 'smoke'"),
        ("gird = 1", "did you mean 'grid'"),
        ("skip = ['export']\n[[task]]\n", "needs export"),
        ("skip = ['complie']\n[[task]]\n", "did you mean 'compile'"),
        ("[grid", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(sweep, text, part):
    with pytest.raises(InputError) as caught:
        sweep(text)
    assert part in str(caught.value)
    assert "sweep.toml" in str(caught.value)
    assert "--set" not in str(caught.value)


def test_names_are_looked_up_before_anything_runs(sweep):
    tasks = sweep("preset = 'smoke'\n[grid]\nattack.attacks = ['copycat', 'copycta']")
    with pytest.raises(InputError, match=r"task attack.attacks-copycta: .*did you mean 'copycat'"):
        check_tasks(tasks)


def test_the_example_is_a_sweep():
    tasks = read_sweep(Path(__file__).parents[4] / "examples" / "sweep.toml")
    assert len(tasks) == 5
    check_tasks(tasks)
