"""What the benchmark runs, as data: arenas, victims, and the cells in their order.

Two parts. The *key* cells hold the claims: every studied victim against every pool, with the
learners that have broken one of them, at three victim seeds times three attack seeds. The *broad*
cells try everything else there is, one thing varied at a time, at three pairs of seeds. Breadth
first: a part is done at one pair of seeds before the next, so that however early a run is stopped,
what is there is a usable matrix.

The scale "paper" is planned and not run: victims and clones of the papers need a GPU.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction import ATTACKS
from divqat_brevitas.extraction.learners import strongest_thieves
from fpga_flow.bench.extraction.shadows import has_shadow
from fpga_flow.bench.extraction.specs import CellSpec, VictimSpec
from fpga_flow.report.analysis import BASELINE
from fpga_flow.theft import FREE_POOL, Theft, needs_shadow

Scale = Literal["mini", "compact", "paper"]
MAIN_ATTACK = "knockoff-random"
MAIN_SURROGATE = "vgg-small"


Changes = tuple[tuple[str, float | str], ...]
Seeds = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Arena:
    """One data set with its victims, and the pools thieves come with.

    Attributes:
        recipe: arguments of its VictimSpecs but variant, changes and seed.
        victims: variants; the first two are compared with all others: "float" and "qat".
        studied: variants on which every attack, learner and defence is tried.
        gates: of a studied variant the defence that belongs to it; it is attacked with and
            without.
        tuned: of a variant, what it changes of its preset on this data set; chosen on validation
            data.
        frontier: further victims, as (variant, changes of its preset): how much accuracy buys
            how much protection.
        pools: what thieves hold; the first is the main one: of those that are not the victim's own
            kind, that which plain QAT gives most away to.
        theft: arguments of its Thefts that all share.
        budgets: the main budget, then the smaller ones of the curve.
        free_budget: of attacks that make their own images; None: the main one.
        broad: False leaves out everything but the key cells and the curve.
    """

    recipe: dict[str, Any]
    victims: tuple[str, ...]
    studied: tuple[str, ...]
    gates: Mapping[str, str] = field(default_factory=dict)
    tuned: Mapping[str, Changes] = field(default_factory=dict)
    frontier: tuple[tuple[str, Changes], ...] = ()
    pools: tuple[str, ...]
    theft: dict[str, Any]
    budgets: tuple[int, ...]
    free_budget: int | None = None
    broad: bool = True

    def cell(self, variant: str, changes: Changes | None = None, **how: Any) -> CellSpec:
        """A cell at seed 0: the main attack on the main pool, but for ``how``."""
        changes = self.tuned.get(variant, ()) if changes is None else changes
        victim = VictimSpec(variant=variant, changes=changes, **self.recipe)
        chosen = {"pool": self.pools[0], "budget": self.budgets[0], **self.theft, **how}
        return CellSpec(victim=victim, theft=Theft(**chosen))


VARIANTS = ("float", "qat", "divqat-literal", "divqat-nasty", "divqat-decoy")
STUDIED = ("qat", "divqat-nasty", "divqat-decoy")
DEFENCES = (
    "rounding:1",
    "noise@0.2",
    "reverse-sigmoid@0.2",
    "dcp@0.2",
    "misinformation@0.2",
    "mad@0.2",
    "mad-argmax@0.2",
    "grad2@0.2",
    "ensemble",
)
"""Defences of the answers that are tried; top-1, top-k and rounding are oracles as well.

Each victim has those with a strength at one cost to its owner: a mean ℓ1 distance of 0.2 on
validation images. Behind a gate that is on top of the gate.
"""
_BREAKERS = ("soft", "argmax", "recovery")
"""Learners tried on every defence."""
_ANSWERS = ("top1", "posterior:2", "gated:0")
"""Answer units of the chip that are tried, with the learners "soft" and "centred"."""
_READERS = ("centred", "filtered")
"""Learners that have done best against the decoy."""
# Fewer epochs leave the thief weaker than need be: 12 cost it 6 points on Fashion-MNIST.
_COMPACT = {"epochs": 20, "precision": "bfloat16"}
_GATES = {"divqat-decoy": "gate:0:0.05"}
# At the preset's weight a CIFAR-10 network of this size loses 6 points on validation data.
_GENTLE: Changes = (("ood_weight", 0.03), ("ood_fraction", 0.25))
_CIFAR = {
    "model": "cifar-cnn",
    "float_epochs": 12,
    "quant_epochs": 10,
    "quant_learning_rate": 0.03,
    "augment": "flip-shift",
    "precision": "bfloat16",
    "guard": 0.2,
}
_FASHION = {
    "model": "fashion-cnn",
    "float_epochs": 8,
    "quant_epochs": 6,
    "quant_learning_rate": 0.03,
    "augment": "shift",
    "precision": "bfloat16",
    "guard": 0.2,
}
_SMALL = {"epochs": 30, "precision": "bfloat16", "surrogate": "compact"}
# Each victim meets each attack seed; the first three pairs share neither, and so count most.
_KEY_SEEDS = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1))
_BROAD_SEEDS = ((0, 0), (1, 1), (2, 2))
_FRONTIER: tuple[tuple[str, Changes], ...] = (
    ("divqat-nasty", (("weight", 0.01),)),
    ("divqat-nasty", (("order", "js"),)),
    ("divqat-nasty", (("order", "forward"),)),
    ("divqat-nasty", (("temperature", 1.0), ("weight", 0.1))),
    ("divqat-nasty", (("cap", 1.0),)),
    ("divqat-nasty", (("warmup", 0.0),)),
    ("divqat-decoy", (("ood_weight", 0.1),)),
    ("divqat-decoy", (("ood_weight", 0.5),)),
    ("divqat-decoy", (("ood_weight", 1.0),)),
    ("divqat-decoy", (("decoy_mass", 0.82),)),
    ("divqat-decoy", (("decoy_class", 8),)),
    ("divqat-decoy", (("weight", 0.01),)),
)


COMPACT = (
    Arena(
        recipe={"dataset": "fashion-mnist", **_FASHION},
        victims=VARIANTS,
        studied=STUDIED,
        gates=_GATES,
        frontier=_FRONTIER,
        pools=("fonts", "dataset:cifar10", "dataset:mnist", "in"),
        theft=_SMALL,
        budgets=(5000, 500, 2000),
        free_budget=20_000,
    ),
    Arena(
        recipe={"dataset": "cifar10", **_CIFAR},
        victims=VARIANTS,
        studied=STUDIED,
        gates=_GATES,
        tuned={"divqat-decoy": _GENTLE},
        frontier=(
            *_FRONTIER[:2],
            ("divqat-decoy", (("ood_weight", 0.01), ("ood_fraction", 0.25))),
            ("divqat-decoy", (("ood_weight", 0.1), ("ood_fraction", 0.25))),
            ("divqat-decoy", (*_GENTLE, ("weight", 0.01))),
        ),
        pools=("wallpapers", "emoji", "in"),
        theft=_COMPACT,
        budgets=(5000, 500, 2000),
    ),
    Arena(
        recipe={"dataset": "mnist", **_FASHION, "float_epochs": 4, "quant_epochs": 3},
        victims=("float", "qat", "divqat-nasty", "divqat-decoy"),
        studied=STUDIED,
        gates=_GATES,
        pools=("fonts", "in"),
        theft=_SMALL,
        budgets=(5000, 500, 2000),
        broad=False,
    ),
    Arena(
        recipe={"dataset": "cifar10:0-4", **_CIFAR},
        victims=("float", "qat", "divqat-nasty", "divqat-decoy"),
        studied=STUDIED,
        gates=_GATES,
        tuned={"divqat-decoy": _GENTLE},
        pools=("dataset:cifar10:5-9",),
        theft=_COMPACT,
        budgets=(5000, 500, 2000),
        broad=False,
    ),
)
MINI = (
    Arena(
        recipe={
            "dataset": "digits",
            "model": "digits-cnn",
            "float_epochs": 12,
            "quant_epochs": 4,
            "batch_size": 50,
            "guard": 0.3,
        },
        victims=VARIANTS,
        studied=("qat", "divqat-decoy"),
        gates=_GATES,
        pools=("in", "letters"),
        theft={"epochs": 20},
        budgets=(200,),
        free_budget=1000,
    ),
)
# Not run: for a machine with a GPU. Victims, clones, pools and epochs of KnockoffNets (Orekondy et
# al., CVPR 2019) as "Efficient Defense Against Model Stealing Attacks on CNNs" (ICMLA 2023) has
# them; queries without images as DFME (Truong et al., CVPR 2021).
_PAPER = {"model": "resnet-18", "float_epochs": 50, "quant_epochs": 50}


def _paper(dataset: str, augment: str, *pools: str, broad: bool = False) -> Arena:
    return Arena(
        recipe={"dataset": dataset, **_PAPER, "augment": augment},
        victims=VARIANTS,
        studied=STUDIED,
        gates=_GATES,
        pools=(*pools, "in"),
        theft={"epochs": 50, "surrogate": "resnet-34"},
        budgets=(50_000, 5000),
        free_budget=20_000_000,
        broad=broad,
    )


PAPER = (
    _paper("cifar10", "flip-shift", "dataset:cifar100", "wallpapers", broad=True),
    _paper("cifar100", "flip-shift", "dataset:cifar10"),
    # Mirrored digits and signs are others.
    _paper("svhn", "shift", "dataset:cifar10"),
    _paper("gtsrb", "shift", "dataset:cifar10"),
)
SCALES: dict[str, tuple[tuple[Arena, ...], Seeds, Seeds]] = {
    "mini": (MINI, ((0, 0),), ((0, 0),)),
    "compact": (COMPACT, _KEY_SEEDS, _BROAD_SEEDS),
    "paper": (PAPER, _KEY_SEEDS, _BROAD_SEEDS),
}
"""Arenas, and the seeds (victim, attack) of key and broad cells."""


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


def cells_of(arenas: Iterable[Arena], key_seeds: Seeds, broad_seeds: Seeds) -> list[CellSpec]:
    """The cells of some arenas, in the order they are run; no name twice.

    Args:
        arenas: run side by side.
        key_seeds: pairs (victim, attack) of the key cells; begins with ``broad_seeds``.
        broad_seeds: pairs of all other cells.
    """
    arenas = list(arenas)
    key = _interleaved([list(_key_cells(arena)) for arena in arenas])
    broad = _interleaved([list(_broad_cells(arena)) for arena in arenas])
    first = len(broad_seeds)
    order = [
        *((cells, seeds) for cells, seeds in zip([key] * first, key_seeds, strict=False)),
        (broad, broad_seeds[0]),
        *((key, seeds) for seeds in key_seeds[first:]),
        *((broad, seeds) for seeds in broad_seeds[1:]),
    ]
    return list(dict.fromkeys(cell.seeded(*seeds) for cells, seeds in order for cell in cells))


def _key_cells(arena: Arena) -> Iterator[CellSpec]:
    """What the claims rest on, the most telling first."""
    for pool in arena.pools:
        for variant in arena.studied:
            yield arena.cell(variant, pool=pool)
            yield arena.cell(variant, pool=pool, oracle="top1")
            yield arena.cell(variant, pool=pool, learner="argmax")
            if variant in arena.gates:
                yield arena.cell(variant, pool=pool, oracle="top1", learner="filtered")
                for learner in _READERS:
                    yield arena.cell(variant, pool=pool, learner=learner)
                for learner in ("soft", "argmax", *_READERS):
                    gate = arena.gates[variant]
                    yield arena.cell(variant, pool=pool, learner=learner, defence=gate)


def _broad_cells(arena: Arena) -> Iterator[CellSpec]:
    """Everything else there is, one thing varied at a time."""
    for variant in arena.victims:
        yield arena.cell(variant)
        yield arena.cell(variant, oracle="top1")
    for variant, changes in arena.frontier:
        yield arena.cell(variant, changes, oracle="top1")
        for learner in ("soft", "centred"):
            yield arena.cell(variant, changes, learner=learner)
        if gate := arena.gates.get(variant):
            yield arena.cell(variant, changes, oracle="top1", learner="filtered")
            for learner in ("soft", "argmax", "filtered"):
                yield arena.cell(variant, changes, learner=learner, defence=gate)
    for budget in arena.budgets[1:]:
        for variant in arena.studied:
            yield arena.cell(variant, budget=budget)
            yield arena.cell(variant, budget=budget, oracle="top1")
    if arena.broad:
        yield from _everything(arena)


def _everything(arena: Arena) -> Iterator[CellSpec]:
    """Each attack, learner, defence, oracle and surrogate once for each protected victim.

    Plain QAT, and the victims with a gate, with it and without.
    """
    shadowed = has_shadow(arena.recipe["dataset"])
    for variant, gate in _protected(arena):
        shown: dict[str, Any] = {"defence": gate}
        for name, entry in ATTACKS.built_in.items():  # not what this machine has beside them
            if entry.material == "free":
                free: dict[str, Any] = {
                    "pool": FREE_POOL,
                    "budget": arena.free_budget or arena.budgets[0],
                }
                yield arena.cell(variant, attack=name, **free, **shown)
            else:
                yield arena.cell(variant, attack=name, **shown)
        for pool in [pool for pool in arena.pools if pool != "in"][:1]:
            # A thief with a little of the victim's own kind among other images.
            mixed: dict[str, Any] = {"pool": f"mix:in:0.05,{pool}", **shown}
            yield arena.cell(variant, **mixed)
            yield arena.cell(variant, learner="filtered", **mixed)
        # Jacobian augmentation as its papers do it: from seed images of the victim's own kind.
        yield arena.cell(variant, attack="jbtr", pool="in", **shown)
        for learner in strongest_thieves(shadow=shadowed):
            yield arena.cell(variant, learner=learner, **shown)
        for oracle in ("logits", "topk", "rounded"):
            yield arena.cell(variant, oracle=oracle, **shown)
        for surrogate in ("resnet-small", "vgg-medium", "vgg-wide"):
            yield arena.cell(variant, surrogate=surrogate, **shown)
    for defence in DEFENCES:
        for variant, gate in _protected(arena):
            behind = defence if gate == "none" else f"{gate}+{defence}"
            for learner in _BREAKERS:
                if shadowed or not needs_shadow(learner):
                    yield arena.cell(variant, defence=behind, learner=learner)
    for answer in _ANSWERS:
        for variant in (BASELINE, *arena.gates):
            for learner in ("soft", "centred"):
                yield arena.cell(variant, answer=answer, learner=learner)


def _protected(arena: Arena) -> Iterator[tuple[str, str]]:
    """The victims on which everything is tried, and the gate they stand behind, or "none"."""
    yield BASELINE, "none"
    for variant, gate in arena.gates.items():
        yield variant, "none"
        yield variant, gate


def _interleaved(lists: Iterable[list[CellSpec]]) -> list[CellSpec]:
    """Each list spread evenly over the whole, so that no arena has to wait for another's end."""
    placed = [
        ((index + 0.5) / len(cells), number, cell)
        for number, cells in enumerate(lists)
        for index, cell in enumerate(dict.fromkeys(cells))
    ]
    return [cell for _, _, cell in sorted(placed, key=lambda item: item[:2])]
