"""The compact matrix for a set of the user's own."""

import json

import pytest
from fake_sets import small_folder

from benchmarks.extraction.plan import scenario_of
from benchmarks.extraction.scenarios import COMPACT
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.attack_spec import NO_POOL, check, needs_shadow
from fpga_flow.cli import main


def test_a_grey_set_has_the_grey_matrix_and_says_which_pools_it_lacks(tmp_path) -> None:
    own = scenario_of("digits", tmp_path)  # a data folder without anything
    grey = COMPACT[0]
    assert own.scenario.recipe == grey.recipe | {"dataset": "digits"}
    assert own.scenario.budgets == grey.budgets
    assert own.scenario.pools == ("in",)
    assert [line.split()[1] for line in own.left_out] == list(grey.pools[:-1])
    (fonts,) = [line for line in own.left_out if line.split()[1] == "fonts"]
    assert "divqat data fetch fonts" in fonts
    assert {c.victim.dataset for c in own.experiments} == {"digits"}
    assert {c.attack.pool for c in own.experiments} == {"in", NO_POOL}


@pytest.mark.slow  # trains and attacks
def test_a_pool_of_the_victims_own_images_is_left_out(tmp_path) -> None:
    (line,) = [x for x in scenario_of("mnist5k", tmp_path).left_out if "dataset:mnist" in x]
    assert "shares images" in line


def test_a_colour_folder_has_the_colour_matrix_without_shadows(tmp_path) -> None:
    name = small_folder(tmp_path, train=12, test=4)
    own = scenario_of(name)
    assert own.scenario.recipe == COMPACT[1].recipe | {"dataset": name}
    assert own.scenario.tuned == COMPACT[1].tuned
    experiments = own.experiments
    assert (
        len({experiment.name for experiment in experiments})
        == len({experiment.key for experiment in experiments})
        == len(experiments)
    )
    for experiment in experiments[:60]:
        check(experiment.attack)
    # No public set stands for three colours.
    assert not any(needs_shadow(experiment.attack.learner) for experiment in experiments)
    assert {(c.victim.seed, c.attack.seed) for c in experiments} >= {(0, 0), (1, 1), (2, 2), (2, 1)}


@pytest.mark.parametrize("name", ["svhn", "gtsrb", "cifar100"])
def test_a_set_that_is_not_there_is_refused_with_how_to_get_it(name, tmp_path) -> None:
    with pytest.raises(InputError, match=rf"'{name}' is not in .* To get it"):
        scenario_of(name, tmp_path)


def test_small_images_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="at least 8x8"):
        scenario_of(small_folder(tmp_path, side=6, train=6, test=2))


def test_the_command_lists_the_experiments(tmp_path, capsys) -> None:
    name = small_folder(tmp_path / "cub", train=12, test=4)
    command = ["bench", "extraction", "--dataset", name, "--work", str(tmp_path / "work")]
    with pytest.raises(SystemExit) as end:
        main([*command, "--list", "--json"])
    assert end.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == {
        experiment.name for experiment in scenario_of(name).experiments
    }
    assert not any(row["done"] for row in rows)
    assert all("/" not in row["name"] for row in rows)


def test_a_dataset_goes_with_the_compact_scale_alone(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "extraction", "--dataset", "digits", "--scale", "mini"])
    assert end.value.code == 2
    assert "leave out --scale mini" in capsys.readouterr().err
