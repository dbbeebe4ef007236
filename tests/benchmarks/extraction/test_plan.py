"""What the benchmark runs: everything there is, breadth first, no two things of one name."""

from dataclasses import replace

import pytest

from benchmarks.extraction.plan import plan
from benchmarks.extraction.runner import select
from benchmarks.extraction.scenarios import DEFENCES
from benchmarks.extraction.shadows import shadow_of
from benchmarks.extraction.specs import ExperimentSpec, VictimSpec
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import ATTACKS
from divqat_brevitas.extraction.attack_spec import check
from divqat_brevitas.extraction.defences.owner import split_fallback

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
