"""What the benchmark runs: the cells of its arenas, in their order.

Three parts. The *key* cells hold the claims: plain QAT and the victims with a gate against their
arena's main pool, with the learners that have broken one of them, at three victim seeds times three
attack seeds. The *repeated* ones at three pairs of seeds: other victims, learners, pools and sets,
smaller budgets, composition with existing defences. The *broad* ones once: everything else there
is, one thing varied at a time. A thief that does better there than those of the key cells leaves a
claim undecided, and belongs among the repeated ones (``Arena.rivals``). Breadth first: a part is
done at one pair of seeds before the next, so that however early a run is stopped, what is there is
a usable matrix.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

from benchmarks.extraction.arenas import COMPACT, MINI, PAPER, Arena, Changes
from benchmarks.extraction.shadows import has_shadow
from benchmarks.extraction.specs import CellSpec
from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction import ATTACKS
from divqat_brevitas.extraction.attack_spec import NO_POOL, needs_shadow
from divqat_brevitas.extraction.evaluation.summary import BASELINE
from divqat_brevitas.extraction.learners import strongest_learners

Scale = Literal["mini", "compact", "paper"]
Pairs = tuple[tuple[int, int], ...]
_BREAKERS = ("soft", "argmax", "recovery")
"""Learners tried on every defence."""
_SORTER = "filtered"
_SORTERS = (_SORTER, "filtered-argmax")
"""Learners that sort a decoy's answers out, tried on whatever stands on top of a gate."""
_ANSWERS = ("top1", "posterior:2", "gated:{decoy}")
"""Answer units of the chip that are tried, with the learners "soft" and "centred"."""
_READERS = ("centred", _SORTER)
"""Learners that have done best against the decoy; of labels the last."""
_SURROGATES = ("resnet-small", "vgg-medium", "vgg-wide")


@dataclass(frozen=True)
class Seeds:
    """The pairs (victim seed, attack seed) of each part; each begins with those of the next."""

    key: Pairs
    repeated: Pairs
    broad: Pairs


_ONE: Pairs = ((0, 0),)
# The first three pairs share neither seed, and so count most.
_THREE: Pairs = (*_ONE, (1, 1), (2, 2))
# Each victim meets each attack seed.
_NINE: Pairs = (*_THREE, (0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1))
SCALES: dict[str, tuple[tuple[Arena, ...], Seeds]] = {
    "mini": (MINI, Seeds(_ONE, _ONE, _ONE)),
    "compact": (COMPACT, Seeds(_NINE, _THREE, _ONE)),
    "paper": (PAPER, Seeds(_NINE, _THREE, _THREE)),
}
"""Arenas and seeds. "compact" takes 6 to 9 hours of 2 cores."""


def plan(scale: str) -> list[CellSpec]:
    """All cells of a scale, in the order they are run; no name twice.

    Raises:
        InputError: unknown scale.

    Example:
        >>> cells = plan("compact")
        >>> {(cell.victim.seed, cell.theft.seed) for cell in cells[:100]}
        {(0, 0)}
    """
    if scale not in get_args(Scale):
        raise unknown_name("scale", scale, get_args(Scale))
    return cells_of(*SCALES[scale])


def cells_of(arenas: Iterable[Arena], seeds: Seeds) -> list[CellSpec]:
    """The cells of some arenas, in the order they are run; no name twice.

    Args:
        arenas: run side by side.
        seeds: of each part.
    """
    arenas = list(arenas)
    key, repeated, broad = (
        _interleaved([list(part(arena)) for arena in arenas])
        for part in (_key_cells, _repeated_cells, _broad_cells)
    )
    first = len(seeds.repeated)
    order = [
        *((part, pair) for pair in seeds.repeated for part in (key, repeated)),
        *((broad, pair) for pair in seeds.broad),
        *((key, pair) for pair in seeds.key[first:]),
    ]
    return list(dict.fromkeys(cell.seeded(*pair) for part, pair in order for cell in part))


def _key_cells(arena: Arena) -> Iterator[CellSpec]:
    """What the claims rest on: the arena's main pool, and the learners that do best.

    With augmented images too: those are stronger where labels are few or wrong.
    """
    if not arena.main:
        return
    for variant, gate in _protected(arena):
        for augmented in ("", *arena.augmented):
            yield arena.cell(variant, defence=gate, learner=augmented or "soft")
            yield arena.cell(variant, oracle="top1", learner=augmented or "soft")
            if gate != "none":
                yield arena.cell(variant, oracle="top1", learner=_wrapped(augmented, _SORTER))


def _repeated_cells(arena: Arena) -> Iterator[CellSpec]:
    """What says whether that holds elsewhere: other pools and budgets, defences on top."""
    for pool in arena.pools:
        yield from _with_pool(arena, pool)
    for variant in arena.gated if arena.main else ():
        for augmented, learner in product(arena.augmented, _READERS):
            reader = _wrapped(augmented, learner)
            yield arena.cell(variant, defence=arena.gate(variant), learner=reader)
    for variant, gate in _protected(arena):
        for rival in arena.rivals.get(variant, ()):
            yield arena.cell(variant, defence=gate, **rival)
    for budget, (variant, gate) in product(arena.budgets[1:], _protected(arena)):
        yield arena.cell(variant, budget=budget, defence=gate)
        sorter = "soft" if gate == "none" else _SORTER
        yield arena.cell(variant, budget=budget, oracle="top1", learner=sorter)
    yield from _changed(arena, arena.contenders)
    yield from _composed(arena, arena.composed, shadow=False)


def _with_pool(arena: Arena, pool: str) -> Iterator[CellSpec]:
    """Every studied victim, with the learners that have broken one."""
    for variant in arena.studied:
        yield arena.cell(variant, pool=pool)
        yield arena.cell(variant, pool=pool, oracle="top1")
        if gate := arena.gate(variant):
            yield arena.cell(variant, pool=pool, oracle="top1", learner=_SORTER)
            yield arena.cell(variant, pool=pool, learner="centred")
            for learner in ("soft", *_READERS):
                yield arena.cell(variant, pool=pool, learner=learner, defence=gate)


def _wrapped(augmented: str, learner: str) -> str:
    return f"{augmented}-{learner}" if augmented else learner


def _composed(arena: Arena, defences: Iterable[str], *, shadow: bool = True) -> Iterator[CellSpec]:
    """Existing defences of the answers, before plain QAT and the victims with a gate.

    With ``shadow`` the learners too that train a victim of their own.
    """
    shadowed = shadow and has_shadow(arena.recipe["dataset"])
    for defence in defences:
        for variant, gate in _protected(arena):
            behind = defence if gate == "none" else f"{gate}+{defence}"
            for learner in _BREAKERS if gate == "none" else (*_BREAKERS, *_SORTERS):
                if shadowed or not needs_shadow(learner):
                    yield arena.cell(variant, defence=behind, learner=learner)


def _changed(arena: Arena, victims: Iterable[tuple[str, Changes]]) -> Iterator[CellSpec]:
    """Victims trained with other numbers than their preset's."""
    for variant, changes in victims:
        yield arena.cell(variant, changes, oracle="top1")
        for learner in ("soft", "centred"):
            yield arena.cell(variant, changes, learner=learner)
        if gate := arena.gate(variant, changes):
            yield arena.cell(variant, changes, oracle="top1", learner=_SORTER)
            yield arena.cell(variant, changes, defence=gate)


def _broad_cells(arena: Arena) -> Iterator[CellSpec]:
    """Everything else there is, one thing varied at a time."""
    for variant in arena.victims:
        yield arena.cell(variant)
        yield arena.cell(variant, oracle="top1")
    yield from _changed(arena, arena.frontier)
    if arena.main:
        yield from _everything(arena)
        yield from _composed(arena, arena.defences)


def _everything(arena: Arena) -> Iterator[CellSpec]:
    """Each attack, learner, oracle, surrogate and answer unit once for each protected victim.

    Plain QAT, and the victims behind their gates. Without them they are robbed in the key cells,
    by the learner that reads a decoy's true answer off.
    """
    shadowed = has_shadow(arena.recipe["dataset"])
    for variant, gate in _protected(arena):
        shown: dict[str, Any] = {"defence": gate}
        for name, entry in ATTACKS.built_in.items():  # not what this machine has beside them
            if entry.starts_from == "free":
                free: dict[str, Any] = {
                    "pool": NO_POOL,
                    "budget": arena.free_budget or arena.budgets[0],
                }
                yield arena.cell(variant, attack=name, **free, **shown)
            else:
                yield arena.cell(variant, attack=name, **shown)
        for pool in [pool for pool in arena.pools if pool != "in"][:1]:
            # A thief with a little of the victim's own kind among other images.
            mixed: dict[str, Any] = {"pool": f"mix:in:0.05,{pool}", **shown}
            yield arena.cell(variant, **mixed)
            yield arena.cell(variant, learner=_SORTER, **mixed)
        # Jacobian augmentation as its papers do it: from seed images of the victim's own kind.
        yield arena.cell(variant, attack="jbtr", pool="in", **shown)
        for learner in strongest_learners(shadow=shadowed):
            yield arena.cell(variant, learner=learner, **shown)
        for oracle in ("logits", "topk", "rounded"):
            yield arena.cell(variant, oracle=oracle, **shown)
        for surrogate in _SURROGATES:
            yield arena.cell(variant, surrogate=surrogate, **shown)
    for answer in _ANSWERS:
        for variant in arena.gated:
            unit = answer.format(decoy=arena.decoy_class(variant))
            yield arena.cell(BASELINE, answer=unit)
            for learner in ("soft", "centred"):
                yield arena.cell(variant, answer=unit, learner=learner)


def _protected(arena: Arena) -> Iterator[tuple[str, str]]:
    """The victims on which everything is tried, and the gate they stand behind, or "none"."""
    yield BASELINE, "none"
    for variant in arena.gated:
        yield variant, str(arena.gate(variant))


def _interleaved(lists: Iterable[list[CellSpec]]) -> list[CellSpec]:
    """Each list spread evenly over the whole, so that no arena has to wait for another's end."""
    placed = [
        ((index + 0.5) / len(cells), number, cell)
        for number, cells in enumerate(lists)
        for index, cell in enumerate(dict.fromkeys(cells))
    ]
    return [cell for _, _, cell in sorted(placed, key=lambda item: item[:2])]
