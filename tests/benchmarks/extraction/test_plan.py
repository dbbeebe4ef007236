"""What the benchmark runs: everything there is, breadth first, no two things of one name."""

from dataclasses import replace

import pytest

from benchmarks.extraction.plan import SCALES, experiments_of, plan
from benchmarks.extraction.runner import select
from benchmarks.extraction.scenarios import COMPACT, DEFENCES
from benchmarks.extraction.shadows import shadow_of
from benchmarks.extraction.specs import ExperimentSpec, VictimSpec
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import ATTACKS, TARGETS
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


@pytest.mark.parametrize("scale", ["mini", "compact"])
def test_each_defence_stands_before_plain_qat_and_the_decoy_at_one_cost(scale):
    """On top of the decoy's gate; what has a strength is named by its cost."""
    assert {name for name in DEFENCES if "@" not in name} == {"rounding:1", "ensemble"}
    met: dict[tuple[str, str], set[str]] = {}
    for experiment in plan(scale):
        gate, defence = split_fallback(experiment.attack.defence)
        if defence != "none":
            who = experiment.victim.variant.removesuffix("-photos") + gate.partition(":")[0]
            met.setdefault((who, defence), set()).add(experiment.attack.learner)
    for defence in DEFENCES:
        learners = met.pop(("qat", defence))
        assert {"soft", "argmax"} <= learners
        assert met.pop(("divqat-decoygate", defence)) == learners | {"filtered", "filtered-argmax"}
    assert not met


def test_breadth_first():
    experiments = plan("compact")
    # After a tenth of it every data set has its victims undefended and defended.
    first = {
        (experiment.victim.dataset, experiment.victim.variant.removesuffix("-photos"))
        for experiment in experiments[: len(experiments) // 10]
    }
    datasets = {d for d, _ in first}
    assert datasets == {experiment.victim.dataset for experiment in experiments}
    assert {(d, v) for d in datasets for v in ("qat", "divqat-decoy")} <= first
    # One pair of seeds is done before the next, and no experiment of a pair is done twice.
    pairs = [(experiment.victim.seed, experiment.attack.seed) for experiment in experiments]
    runs = [pair for i, pair in enumerate(pairs) if i == 0 or pair != pairs[i - 1]]
    assert runs[:3] == [(0, 0), (1, 1), (2, 2)]
    assert len(runs) <= 9 + 1
    assert set(pairs) == {(v, a) for v in range(3) for a in range(3)}


def test_claims_rest_on_nine_pairs_of_seeds():
    counted: dict[str, set[tuple[int, int]]] = {}
    for experiment in plan("compact"):
        pair = experiment.victim.seed, experiment.attack.seed
        counted.setdefault(experiment.configuration, set()).add(pair)
    sizes = {len(pairs) for pairs in counted.values()}
    assert sizes == {1, 3, 9}
    full = {
        (experiment.victim.variant, experiment.attack.oracle, experiment.attack.learner, gate != "")
        for experiment in plan("compact")
        for gate, _ in [split_fallback(experiment.attack.defence)]
        if len(counted[experiment.configuration]) == 9
    }
    for augmented, decoy in (("shifted", "divqat-decoy"), ("mirrored", "divqat-decoy-photos")):
        for prefix in ("", f"{augmented}-"):
            naive = prefix.rstrip("-") or "soft"
            assert {("qat", oracle, naive, False) for oracle in ("soft", "top1")} <= full
            assert (decoy, "soft", naive, True) in full
            assert {(decoy, "top1", name, False) for name in (naive, f"{prefix}filtered")} <= full


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


def test_treatments_are_learners():
    check(replace(plan("mini")[0].attack, learner=f"filtered-{next(iter(TARGETS))}"))


@pytest.mark.parametrize("scenario", [scenario for scenario in COMPACT if scenario.extra_attackers])
def test_rivals_of_the_key_experiments_are_repeated(scenario):
    experiments = plan("compact")
    once = experiments_of([replace(scenario, extra_attackers={})], SCALES["compact"][1])
    for variant, extra_attackers in scenario.extra_attackers.items():
        for how in extra_attackers:
            first = scenario.experiment(variant, defence=scenario.gate(variant) or "none", **how)
            assert first in once or how["oracle"] == "top1"
            assert {first.seeded(i, i) for i in range(3)} <= set(experiments)
