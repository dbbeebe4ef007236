"""What the benchmark runs: everything there is, breadth first, no two things of one name."""

import json
from dataclasses import replace

import pytest
from fake_sets import small_folder

from benchmarks.extraction.plan import plan, scenario_of
from benchmarks.extraction.runner import select
from benchmarks.extraction.scenarios import COMPACT, DEFENCES
from benchmarks.extraction.shadows import shadow_of
from benchmarks.extraction.specs import ExperimentSpec, VictimSpec
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import ATTACKS
from divqat_brevitas.extraction.attack_spec import NO_POOL, check, needs_shadow
from divqat_brevitas.extraction.defences.owner import split_fallback
from fpga_flow.cli import main

SPEC = VictimSpec(dataset="digits", model="digits-cnn")


@pytest.mark.slow  # trains and attacks
@pytest.mark.parametrize("scale", ["mini", "compact", "paper"])
def test_names_and_keys_are_one_to_one_and_every_name_is_known(scale):
    experiments = plan(scale)
    assert (
        len({experiment.name for experiment in experiments})
        == len({experiment.key for experiment in experiments})
        == len(experiments)
    )
    seen = set()
    for experiment in experiments:
        how = replace(experiment.attack, seed=0, budget=1000)
        if how not in seen:
            seen.add(how)
            check(how)


def test_every_attack_and_defence_is_tried():
    for scale in ("mini", "compact"):
        experiments = plan(scale)
        assert {experiment.attack.attack for experiment in experiments} == set(ATTACKS)
        alone = {split_fallback(experiment.attack.defence)[1] for experiment in experiments}
        assert alone == {"none", *DEFENCES}
        gated = [
            experiment for experiment in experiments if split_fallback(experiment.attack.defence)[0]
        ]
        assert {split_fallback(experiment.attack.defence)[1] for experiment in gated} == alone
        for experiment in gated:
            decoy = dict(experiment.victim.changes).get("decoy_class", 0)
            assert split_fallback(experiment.attack.defence)[0] == f"gate:{decoy}:0.05"


def test_a_key_holds_what_weights_depend_on_and_nothing_else():
    nasty = replace(SPEC, variant="divqat-nasty")
    assert replace(SPEC, guard=0.5).key == SPEC.key
    assert replace(nasty, guard=0.5).key != nasty.key
    assert replace(nasty, changes=(("weight", 0.01),)).key != nasty.key
    assert replace(nasty, changes=(("weight", 0.04),)).label == "divqat-nasty-weight0.04"
    assert replace(SPEC, bits="w2a2").reference.key == SPEC.reference.key
    assert replace(SPEC, float_epochs=99).reference.key != SPEC.reference.key
    with pytest.raises(InputError, match="did you mean 'nasty'"):
        replace(SPEC, variant="divqat-nasti")
    with pytest.raises(InputError, match="weight"):
        replace(nasty, changes=(("wait", 0.01),))


def test_a_decoys_cost_and_pool_are_part_of_its_key_and_of_no_others():
    balanced = replace(SPEC, decoy_cost=0.01)
    assert balanced.key == SPEC.key
    assert balanced.reference.key == SPEC.reference.key
    nasty, decoy = (replace(SPEC, variant=f"divqat-{name}") for name in ("nasty", "decoy"))
    assert replace(nasty, decoy_cost=0.01).key == nasty.key
    assert replace(decoy, decoy_cost=0.01).key != decoy.key
    photos = replace(SPEC, variant="divqat-decoy-photos")
    alone = replace(photos, changes=(("ood_pool", ""),))
    assert len({photos.key, alone.key, decoy.key}) == 3


def test_no_attacker_comes_with_what_a_victim_was_trained_on():
    photos = replace(SPEC, dataset="cifar10", variant="divqat-decoy-photos")
    attack = plan("mini")[0].attack
    ExperimentSpec(victim=photos, attack=replace(attack, pool="wallpapers"))
    for pool in ("backgrounds", "photos+", "mix:in:0.05,backgrounds"):
        with pytest.raises(InputError, match="would flatter the defence"):
            ExperimentSpec(victim=photos, attack=replace(attack, pool=pool))
    # A term of no weight draws no image, so no attacker shares one.
    unexposed = replace(photos, changes=(("ood_weight", 0.0),))
    ExperimentSpec(victim=unexposed, attack=replace(attack, pool="photos+"))


def test_a_shadow_shares_no_data_and_no_seed_with_its_victim():
    for experiment in plan("compact"):
        shadow = shadow_of(experiment.victim, (3, 32, 32))
        assert shadow.dataset.partition(":")[0] != experiment.victim.dataset.partition(":")[0]
        assert shadow.seed >= 1000
        assert (shadow.bits, shadow.variant) == (experiment.victim.bits, experiment.victim.variant)


def test_patterns_choose_experiments():
    experiments = plan("mini")
    chosen = select(experiments, ["*.copycat.*", "*.letters.*"])
    assert {c.attack.attack for c in chosen} == {"copycat", "knockoff-random"}
    assert [c for c in experiments if c in chosen] == chosen
    with pytest.raises(InputError, match="no experiment fits"):
        select(experiments, ["*nothing*"])


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
