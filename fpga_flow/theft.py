"""One attack by names, as settings and benchmarks ask for it: looked up, supplied, carried out.

A theft names everything; :func:`check` looks the names up before hours of training,
:func:`supply` gets the thief what it starts from, and :func:`steal` carries it out.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from divqat_brevitas.data import POOLS, dataset_info, load, query_pool
from divqat_brevitas.data.mix import parse_mix
from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction import (
    ATTACKS,
    AttackRow,
    Learner,
    Predictor,
    Result,
    SurrogateTraining,
    Victim,
    attack_row,
    make_attack,
    make_oracle,
)
from divqat_brevitas.extraction.defences import (
    Defence,
    DefenceMaterial,
    make_defence,
    split_target,
)
from divqat_brevitas.extraction.learners import LEARNERS, ShadowPairs, make_learner
from divqat_brevitas.extraction.results import PoolKind
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering.answer import parse_answer

FREE_POOL = "none"
"""Pool of an attack that makes its own images."""
_ASK_ALL = ("knockoff-random", "copycat")
_NO_PAIRS = ShadowPairs(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
_SEED_IMAGES = 150  # Papernot et al., "Practical Black-Box Attacks", ASIA CCS 2017, sec. 5.1.1


@dataclass(frozen=True, kw_only=True)
class Theft:
    """What a thief does to a victim, by names.

    Attributes:
        attack: a key of ``ATTACKS``.
        learner: what it makes of the answers; results call it the treatment.
        surrogate: the clone's network.
        oracle: what the victim shows.
        defence: what perturbs the answers, "none" or a name with its strength or cost.
        pool: the thief's images; "none" for an attack that makes its own.
        budget: queries.
        seed: of the pool and of everything random in the attack.
        epochs: of the clone's training.
        precision: of that training, "float32" or "bfloat16".
        answer: all that leaves the victim's chip, see ``fpga_flow.lowering.answer``: defence and
            oracle come behind it.
    """

    attack: str = "knockoff-random"
    learner: str = "soft"
    surrogate: str = "vgg-small"
    oracle: str = "soft"
    defence: str = "none"
    pool: str = "in"
    budget: int = 1000
    seed: int = 0
    epochs: int = 20
    precision: str = "float32"
    answer: str = "logits"

    @property
    def record(self) -> dict[str, Any]:
        """All fields for a key; an answer of logits is left out, as before there were others."""
        record = asdict(self)
        if self.answer == "logits":
            del record["answer"]
        return record


@dataclass(frozen=True)
class Supply(ShortRepr):
    """What the thief starts from.

    Attributes:
        pool: its name.
        kind: "in", "out" or "free".
        images: uint8 (N, C, H, W); None for an attack that makes its own.
        shape: (C, H, W) of an image.
    """

    pool: str
    kind: PoolKind
    images: npt.NDArray[np.uint8] | None
    shape: tuple[int, int, int]

    @property
    def given(self) -> Any:
        """As ``Attack.run`` takes it."""
        return self.shape if self.images is None else self.images


@dataclass(frozen=True)
class Loot:
    """What a theft brought home, and where its time went.

    Attributes:
        result: the attack's.
        treatment: the learner's name.
        supply: what the thief started from.
        victim_seconds: spent by the victim answering.
        thief_seconds: spent on everything else: mostly training clones.
    """

    result: Result
    treatment: str
    supply: Supply
    victim_seconds: float
    thief_seconds: float


def check(theft: Theft) -> None:
    """Look up every name of a theft.

    Raises:
        InputError: an unknown name, with the nearest, or a number out of range.
    """
    make_oracle(theft.oracle)
    if theft.answer != "logits":
        parse_answer(theft.answer)
    make_attack(theft.attack, _learner(theft, _NO_PAIRS), theft.seed)
    if material(theft.attack) != "free":
        _check_pool(theft.pool)
    stand_in = nn.Identity()
    make_defence(
        split_target(theft.defence)[0],
        DefenceMaterial(surrogate=stand_in, misinformation=stand_in, models=[stand_in]),
    )


def _check_pool(pool: str) -> None:
    """Look up the names in a pool's; whether its images are there is seen when they are drawn."""
    family, _, rest = pool.partition(":")
    if family == "mix":
        few, _, many = parse_mix(pool)
        _check_pool(few)
        _check_pool(many)
    elif family == "dataset" and rest:
        dataset_info(rest)
    elif pool not in POOLS and not (family == "photos" and rest):
        raise unknown_name("query pool", pool, POOLS)


def needs_shadow(learner: str) -> bool:
    """Whether a learner is fitted on shadow pairs: answers of the thief's own networks.

    Example:
        >>> needs_shadow("filtered-recovery"), needs_shadow("filtered-argmax")
        (True, False)
    """
    parts = learner.split("-")
    return any(entry.needs_shadow and name in parts for name, entry in LEARNERS.items())


def _learner(
    theft: Theft, shadow: ShadowPairs | None = None, remember: Path | None = None
) -> Learner:
    return make_learner(
        theft.learner,
        surrogate=theft.surrogate,
        epochs=theft.epochs,
        training=SurrogateTraining(precision=theft.precision),
        shadow=shadow,
        seed=theft.seed,
        remember=remember,
    )


def material(attack: str) -> Literal["pool", "seeds", "free"]:
    """What an attack starts from, see ``divqat_brevitas.extraction.attacks.catalogue``.

    Raises:
        InputError: unknown attack.
    """
    if attack not in ATTACKS:
        raise unknown_name("attack", attack, ATTACKS)
    return ATTACKS[attack].material


def pool_size(theft: Theft, dataset: str, root: Path | None = None) -> int:
    """Images the thief holds.

    One that asks all it has holds as many as it may ask; one that chooses among them twice as
    many; one that grows its own from seed images a few. Of a finite pool the choosing thief gets
    what there is, if that is less than twice its budget.
    """
    if material(theft.attack) == "seeds":
        classes = len(dataset_info(dataset).classes)
        return max(2, min(theft.budget, max(classes, min(_SEED_IMAGES, theft.budget // 4))))
    if theft.attack in _ASK_ALL:
        return theft.budget
    there = stock(theft.pool, dataset, root)
    return 2 * theft.budget if there is None else max(theft.budget, min(2 * theft.budget, there))


def stock(pool: str, dataset: str, root: Path | None = None) -> int | None:
    """How many images a pool has; None for one that is drawn or rendered and does not run out.

    A mixture runs out with the first of its parts.
    """
    if pool == "in":
        return len(load(dataset, "pool", root)[1])
    family, _, other = pool.partition(":")
    if family == "dataset":
        return sum(len(load(other, split, root)[1]) for split in ("train", "val", "pool"))
    if family == "mix":
        few, share, rest = parse_mix(pool)
        parts = ((stock(few, dataset, root), share), (stock(rest, dataset, root), 1 - share))
        # A part has its share of any beginning of the mixture to one image.
        ends = [max(1, int((there - 1) / of)) for there, of in parts if there is not None]
        return min(ends, default=None)
    return None


def supply(theft: Theft, dataset: str, root: Path | None = None, *, fewer: bool = False) -> Supply:
    """Get the thief what it starts from.

    Args:
        theft: names attack, pool, budget and seed.
        dataset: the victim's.
        root: data folder.
        fewer: take all of a pool that has fewer images than the budget, instead of refusing it;
            the thief then asks fewer queries than it may.

    Raises:
        InputError: a pool that cannot be had or is too small.
    """
    shape = dataset_info(dataset).shape
    if material(theft.attack) == "free":
        return Supply(FREE_POOL, "free", None, shape)
    count = pool_size(theft, dataset, root)
    there = stock(theft.pool, dataset, root) if fewer else None
    pool = query_pool(
        theft.pool, dataset, count if there is None else min(count, there), theft.seed, root
    )
    return Supply(pool.name, pool.kind, pool.images, shape)


def steal(
    theft: Theft,
    predictor: Predictor,
    supplied: Supply,
    *,
    defence: Defence | None = None,
    shadow: ShadowPairs | None = None,
    remember: Path | None = None,
) -> Loot:
    """Carry a theft out on a fresh victim that ``predictor`` answers for.

    Args:
        theft: what to do.
        predictor: the network under attack.
        supplied: what the thief starts from.
        defence: the one that ``theft`` names, where it needs material; None: made from its name.
        shadow: pairs for learners that need them.
        remember: folder of clones trained before; saves training the same one again.

    Raises:
        InputError: names or material that do not fit.
    """
    learner = _learner(theft, shadow, remember)
    thief = make_attack(theft.attack, learner, theft.seed)
    watched = _Watched(predictor)
    applied = make_defence(theft.defence, seed=theft.seed) if defence is None else defence
    victim = Victim(watched, oracle=theft.oracle, budget=theft.budget, defence=applied)
    start = time.perf_counter()
    result = thief.run(victim, supplied.given)
    seconds = time.perf_counter() - start
    return Loot(result, learner.name, supplied, watched.seconds, seconds - watched.seconds)


def row_of(
    theft: Theft, loot: Loot, *, victim: str, victim_seed: int, engine: str, **measured: float
) -> AttackRow:
    """The theft's row in results.

    Args:
        theft: what was done.
        loot: what came of it.
        victim: variant of the victim.
        victim_seed: it was trained with.
        engine: what answered.
        **measured: ``clone_accuracy`` and ``agreement``.
    """
    return attack_row(
        victim=victim,
        victim_seed=victim_seed,
        engine=engine,
        oracle=theft.oracle,
        defence=theft.defence,
        attack=theft.attack,
        treatment=loot.treatment,
        pool=loot.supply.pool,
        pool_kind=loot.supply.kind,
        budget=theft.budget,
        queries_used=loot.result.queries_used,
        surrogate=theft.surrogate,
        seed=theft.seed,
        clone_accuracy=measured["clone_accuracy"],
        agreement=measured["agreement"],
    )


class _Watched:
    """A predictor that measures the time it takes."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.seconds = 0.0

    def predict(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        start = time.perf_counter()
        try:
            return self._predictor.predict(images)
        finally:
            self.seconds += time.perf_counter() - start
