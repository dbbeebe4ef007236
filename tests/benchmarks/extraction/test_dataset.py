"""The compact matrix for a set of the user's own."""

import json

import pytest
from small_folder import small_folder

from benchmarks.extraction.arenas import COMPACT
from benchmarks.extraction.dataset import arena_of
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.attack_spec import NO_POOL, check, needs_shadow
from fpga_flow.cli import main


def test_a_grey_set_has_the_grey_matrix_and_says_which_pools_it_lacks(tmp_path) -> None:
    own = arena_of("digits", tmp_path)  # a data folder without anything
    grey = COMPACT[0]
    assert own.arena.recipe == grey.recipe | {"dataset": "digits"}
    assert own.arena.budgets == grey.budgets
    assert own.arena.pools == ("in",)
    assert [line.split()[1] for line in own.left_out] == list(grey.pools[:-1])
    (fonts,) = [line for line in own.left_out if line.split()[1] == "fonts"]
    assert "divqat data fetch fonts" in fonts
    assert {c.victim.dataset for c in own.cells} == {"digits"}
    assert {c.theft.pool for c in own.cells} == {"in", NO_POOL}


def test_a_pool_of_the_victims_own_images_is_left_out(tmp_path) -> None:
    (line,) = [x for x in arena_of("mnist5k", tmp_path).left_out if "dataset:mnist" in x]
    assert "shares images" in line


def test_a_colour_folder_has_the_colour_matrix_without_shadows(tmp_path) -> None:
    name = small_folder(tmp_path, train=12, test=4)
    own = arena_of(name)
    assert own.arena.recipe == COMPACT[1].recipe | {"dataset": name}
    assert own.arena.tuned == COMPACT[1].tuned
    cells = own.cells
    assert len({cell.name for cell in cells}) == len({cell.key for cell in cells}) == len(cells)
    for cell in cells[:60]:
        check(cell.theft)
    # No public set stands for three colours.
    assert not any(needs_shadow(cell.theft.learner) for cell in cells)
    assert {(c.victim.seed, c.theft.seed) for c in cells} >= {(0, 0), (1, 1), (2, 2), (2, 1)}


@pytest.mark.parametrize("name", ["svhn", "gtsrb", "cifar100"])
def test_a_set_that_is_not_there_is_refused_with_how_to_get_it(name, tmp_path) -> None:
    with pytest.raises(InputError, match=rf"'{name}' is not in .* To get it"):
        arena_of(name, tmp_path)


def test_small_images_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="at least 8x8"):
        arena_of(small_folder(tmp_path, side=6, train=6, test=2))


def test_the_command_lists_the_cells(tmp_path, capsys) -> None:
    name = small_folder(tmp_path / "cub", train=12, test=4)
    command = ["bench", "extraction", "--dataset", name, "--work", str(tmp_path / "work")]
    with pytest.raises(SystemExit) as end:
        main([*command, "--list", "--json"])
    assert end.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == {cell.name for cell in arena_of(name).cells}
    assert not any(row["done"] for row in rows)
    assert all("/" not in row["name"] for row in rows)


def test_a_dataset_goes_with_the_compact_scale_alone(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "extraction", "--dataset", "digits", "--scale", "mini"])
    assert end.value.code == 2
    assert "leave out --scale mini" in capsys.readouterr().err
