"""What the benchmark runs: everything there is, breadth first, no two things of one name."""

from dataclasses import replace

import pytest

from benchmarks.extraction.arenas import COMPACT, DEFENCES
from benchmarks.extraction.plan import SCALES, cells_of, plan
from benchmarks.extraction.runner import select
from benchmarks.extraction.shadows import shadow_of
from benchmarks.extraction.specs import CellSpec, VictimSpec
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import ATTACKS, TARGETS
from divqat_brevitas.extraction.attack_spec import check
from divqat_brevitas.extraction.defences.owner import split_fallback

SPEC = VictimSpec(dataset="digits", model="digits-cnn")


@pytest.mark.parametrize("scale", ["mini", "compact", "paper"])
def test_names_and_keys_are_one_to_one_and_every_name_is_known(scale):
    cells = plan(scale)
    assert len({cell.name for cell in cells}) == len({cell.key for cell in cells}) == len(cells)
    seen = set()
    for cell in cells:
        how = replace(cell.theft, seed=0, budget=1000)
        if how not in seen:
            seen.add(how)
            check(how)


def test_every_attack_and_defence_is_tried():
    for scale in ("mini", "compact"):
        cells = plan(scale)
        assert {cell.theft.attack for cell in cells} == set(ATTACKS)
        alone = {split_fallback(cell.theft.defence)[1] for cell in cells}
        assert alone == {"none", *DEFENCES}
        gated = [cell for cell in cells if split_fallback(cell.theft.defence)[0]]
        assert {split_fallback(cell.theft.defence)[1] for cell in gated} == alone
        for cell in gated:
            decoy = dict(cell.victim.changes).get("decoy_class", 0)
            assert split_fallback(cell.theft.defence)[0] == f"gate:{decoy}:0.05"


@pytest.mark.parametrize("scale", ["mini", "compact"])
def test_each_defence_stands_before_plain_qat_and_the_decoy_at_one_cost(scale):
    """On top of the decoy's gate; what has a strength is named by its cost."""
    assert {name for name in DEFENCES if "@" not in name} == {"rounding:1", "ensemble"}
    met: dict[tuple[str, str], set[str]] = {}
    for cell in plan(scale):
        gate, defence = split_fallback(cell.theft.defence)
        if defence != "none":
            who = cell.victim.variant.removesuffix("-photos") + gate.partition(":")[0]
            met.setdefault((who, defence), set()).add(cell.theft.learner)
    for defence in DEFENCES:
        learners = met.pop(("qat", defence))
        assert {"soft", "argmax"} <= learners
        assert met.pop(("divqat-decoygate", defence)) == learners | {"filtered", "filtered-argmax"}
    assert not met


def test_breadth_first():
    cells = plan("compact")
    # After a tenth of it every data set has its victims undefended and defended.
    first = {
        (cell.victim.dataset, cell.victim.variant.removesuffix("-photos"))
        for cell in cells[: len(cells) // 10]
    }
    datasets = {d for d, _ in first}
    assert datasets == {cell.victim.dataset for cell in cells}
    assert {(d, v) for d in datasets for v in ("qat", "divqat-decoy")} <= first
    # One pair of seeds is done before the next, and no cell of a pair is done twice.
    pairs = [(cell.victim.seed, cell.theft.seed) for cell in cells]
    runs = [pair for i, pair in enumerate(pairs) if i == 0 or pair != pairs[i - 1]]
    assert runs[:3] == [(0, 0), (1, 1), (2, 2)]
    assert len(runs) <= 9 + 1
    assert set(pairs) == {(v, a) for v in range(3) for a in range(3)}


def test_claims_rest_on_nine_pairs_of_seeds():
    counted: dict[str, set[tuple[int, int]]] = {}
    for cell in plan("compact"):
        pair = cell.victim.seed, cell.theft.seed
        counted.setdefault(cell.configuration, set()).add(pair)
    sizes = {len(pairs) for pairs in counted.values()}
    assert sizes == {1, 3, 9}
    full = {
        (cell.victim.variant, cell.theft.oracle, cell.theft.learner, gate != "")
        for cell in plan("compact")
        for gate, _ in [split_fallback(cell.theft.defence)]
        if len(counted[cell.configuration]) == 9
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
    """Victims trained before there were such settings keep their keys."""
    balanced = replace(SPEC, decoy_cost=0.01)
    assert balanced.key == SPEC.key
    assert balanced.reference.key == SPEC.reference.key
    nasty, decoy = (replace(SPEC, variant=f"divqat-{name}") for name in ("nasty", "decoy"))
    assert replace(nasty, decoy_cost=0.01).key == nasty.key
    assert replace(decoy, decoy_cost=0.01).key != decoy.key
    assert decoy.key == "0ac26a436dd2178bd10b22c54dbb61ac1fb9f46749f8ff83b123120ed8d4be91"
    photos = replace(SPEC, variant="divqat-decoy-photos")
    alone = replace(photos, changes=(("ood_pool", ""),))
    assert len({photos.key, alone.key, decoy.key}) == 3


def test_no_thief_comes_with_what_a_victim_was_trained_on():
    photos = replace(SPEC, dataset="cifar10", variant="divqat-decoy-photos")
    theft = plan("mini")[0].theft
    CellSpec(victim=photos, theft=replace(theft, pool="wallpapers"))
    for pool in ("backgrounds", "photos+", "mix:in:0.05,backgrounds"):
        with pytest.raises(InputError, match="would flatter the defence"):
            CellSpec(victim=photos, theft=replace(theft, pool=pool))
    # A term of no weight draws no image, so no thief shares one.
    unexposed = replace(photos, changes=(("ood_weight", 0.0),))
    CellSpec(victim=unexposed, theft=replace(theft, pool="photos+"))


def test_a_shadow_shares_no_data_and_no_seed_with_its_victim():
    for cell in plan("compact"):
        shadow = shadow_of(cell.victim, (3, 32, 32))
        assert shadow.dataset.partition(":")[0] != cell.victim.dataset.partition(":")[0]
        assert shadow.seed >= 1000
        assert (shadow.bits, shadow.variant) == (cell.victim.bits, cell.victim.variant)


def test_patterns_choose_cells():
    cells = plan("mini")
    chosen = select(cells, ["*.copycat.*", "*.letters.*"])
    assert {c.theft.attack for c in chosen} == {"copycat", "knockoff-random"}
    assert [c for c in cells if c in chosen] == chosen
    with pytest.raises(InputError, match="no cell fits"):
        select(cells, ["*nothing*"])


def test_treatments_are_learners():
    check(replace(plan("mini")[0].theft, learner=f"filtered-{next(iter(TARGETS))}"))


@pytest.mark.parametrize("arena", [arena for arena in COMPACT if arena.rivals])
def test_rivals_of_the_key_cells_are_repeated(arena):
    cells = plan("compact")
    once = cells_of([replace(arena, rivals={})], SCALES["compact"][1])
    for variant, rivals in arena.rivals.items():
        for how in rivals:
            first = arena.cell(variant, defence=arena.gate(variant) or "none", **how)
            assert first in once or how["oracle"] == "top1"
            assert {first.seeded(i, i) for i in range(3)} <= set(cells)
