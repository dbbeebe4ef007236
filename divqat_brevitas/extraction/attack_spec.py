"""One attack by names, as settings and benchmarks ask for it.

An :class:`AttackSpec` names everything. :func:`check` looks the names up before hours of training,
:func:`draw_queries` draws the images that the attacker may ask, and :func:`run_attack` carries the
attack out.
"""

import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from divqat_brevitas.data import POOLS, dataset_info, load, query_pool
from divqat_brevitas.data.pools import DATA_FREE, PoolKind, parse_mix
from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction.arrays import substream
from divqat_brevitas.extraction.attacks.base import Result
from divqat_brevitas.extraction.attacks.catalogue import ATTACKS, StartsFrom, make_attack
from divqat_brevitas.extraction.defences import Defence, DefenceMaterial, make_defence, split_target
from divqat_brevitas.extraction.evaluation.records import AttackRow
from divqat_brevitas.extraction.learners.base import Learner, TransferSet
from divqat_brevitas.extraction.learners.catalogue import (
    LEARNERS,
    LearnerEntry,
    make_learner,
)
from divqat_brevitas.extraction.learners.recovery import ShadowPairs
from divqat_brevitas.extraction.oracles import make_oracle
from divqat_brevitas.extraction.predictor import Predictor, TimedPredictor
from divqat_brevitas.extraction.surrogates.training import SurrogateTraining
from divqat_brevitas.extraction.victim import Victim
from divqat_brevitas.short_repr import ShortRepr

NO_POOL = "none"
"""Pool of an attack that makes its own images."""
ASKS_EVERY_IMAGE = ("knockoff-random", "copycat")
"""Attacks that draw as many images as they ask."""
_ANY_PAIRS = ShadowPairs(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
_ANY_LABELLED = TransferSet(np.zeros((2, 1, 8, 8), np.float32), np.eye(2, dtype=np.float32))
_LABELLED = 10
"""Labelled images of each class that an attacker with a handful of them has."""
_SEED_IMAGES = 150  # Papernot et al., "Practical Black-Box Attacks", ASIA CCS 2017, sec. 5.1.1


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """What an attacker does to a victim, by names.

    Attributes:
        attack: a key of ``ATTACKS``.
        learner: how the attacker trains its clone on the responses, see
            :func:`divqat_brevitas.extraction.learners.make_learner`.
        surrogate: the clone's network, a key of ``SURROGATES``.
        oracle: what the victim shows, a key of ``ORACLES``.
        defence: what perturbs the responses: "none", or a name with its strength or cost.
        pool: the attacker's images; "none" for an attack that makes its own.
        budget: number of queries.
        seed: of the pool and of everything random in the attack.
        epochs: of the clone's training.
        precision: of the clone's training, "float32" or "bfloat16".
        answer: what the chip's answer unit lets out: "logits", or a name that the hardware flow
            knows. Defence and oracle are applied behind it.
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


@dataclass(frozen=True)
class QuerySet(ShortRepr):
    """What the attacker starts from.

    Attributes:
        pool: name of the query pool.
        kind: "in", "out" or "free".
        images: uint8 (N, C, H, W); None for an attack that makes its own.
        shape: (C, H, W) of an image.
        labelled: images of the attacker's own with one-hot labels, for learners that need them.
    """

    pool: str
    kind: PoolKind
    images: npt.NDArray[np.uint8] | None
    shape: tuple[int, int, int]
    labelled: TransferSet | None = None


@dataclass(frozen=True)
class AttackOutcome:
    """The result of an attack, and where its time went.

    Attributes:
        spec: what was done.
        result: the attack's result, with the clone.
        learner: name of the learner.
        queries: what the attacker started from.
        victim_seconds: time that the victim took for its responses.
        attacker_seconds: the remaining time, mostly the training of clones.
    """

    spec: AttackSpec
    result: Result
    learner: str
    queries: QuerySet
    victim_seconds: float
    attacker_seconds: float

    def row(self, **measured: Any) -> AttackRow:
        """The attack's row in results.

        Args:
            **measured: the fields that the attack does not know: victim, victim_seed, engine,
                clone_accuracy and agreement, see :class:`AttackRow`.

        Raises:
            InputError: an accuracy or agreement outside [0, 1].
        """
        spec = self.spec
        return AttackRow(
            oracle=spec.oracle,
            defence=spec.defence,
            attack=spec.attack,
            treatment=self.learner,
            pool=self.queries.pool,
            pool_kind=self.queries.kind,
            budget=spec.budget,
            queries_used=self.result.queries_used,
            surrogate=spec.surrogate,
            seed=spec.seed,
            **measured,
        )


def check(spec: AttackSpec) -> None:
    """Look up every name of a spec but that of the chip's answer.

    Raises:
        InputError: an unknown name, with the nearest, or a number out of range.
    """
    make_oracle(spec.oracle)
    learner = _learner(spec, _ANY_PAIRS, labelled=_ANY_LABELLED, known=make_defence("none"))
    make_attack(spec.attack, learner, spec.seed)
    if starts_from(spec.attack) != "free":
        _check_pool(spec.pool)
    stand_in = nn.Identity()
    make_defence(
        split_target(spec.defence)[0],
        DefenceMaterial(surrogate=stand_in, misinformation=stand_in, models=[stand_in]),
    )


def _check_pool(pool: str) -> None:
    """Look up the names in a pool's name; :func:`draw_queries` looks for the images."""
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
    """Whether a learner is fitted on shadow pairs: responses of the attacker's own networks.

    Example:
        >>> needs_shadow("filtered-recovery"), needs_shadow("filtered-argmax")
        (True, False)
    """
    return any(entry.needs_shadow for entry in _entries(learner))


def _entries(learner: str) -> list[LearnerEntry]:
    parts = learner.split("-")
    return [entry for name, entry in LEARNERS.items() if name in parts]


def _learner(
    spec: AttackSpec,
    shadow: ShadowPairs | None = None,
    remember: Path | None = None,
    labelled: TransferSet | None = None,
    known: Defence | None = None,
) -> Learner:
    return make_learner(
        spec.learner,
        surrogate=spec.surrogate,
        epochs=spec.epochs,
        training=SurrogateTraining(precision=spec.precision),
        shadow=shadow,
        seed=spec.seed,
        remember=remember,
        labelled=labelled,
        known=known,
        oracle=spec.oracle,
    )


def starts_from(attack: str) -> StartsFrom:
    """What an attack starts from: a "pool", a few "seeds", or no image at all ("free").

    Raises:
        InputError: unknown attack.
    """
    if attack not in ATTACKS:
        raise unknown_name("attack", attack, ATTACKS)
    return ATTACKS[attack].starts_from


def query_count(spec: AttackSpec, dataset: str, root: Path | None = None) -> int:
    """Number of images that the attacker draws from its pool.

    An attack that asks every image draws as many as its budget; one that chooses among them twice
    as many, or all of a smaller pool; one that makes its own from seed images a few.
    """
    if starts_from(spec.attack) == "seeds":
        classes = len(dataset_info(dataset).classes)
        return max(2, min(spec.budget, max(classes, min(_SEED_IMAGES, spec.budget // 4))))
    if spec.attack in ASKS_EVERY_IMAGE:
        return spec.budget
    size = pool_size(spec.pool, dataset, root)
    return 2 * spec.budget if size is None else max(spec.budget, min(2 * spec.budget, size))


def pool_size(pool: str, dataset: str, root: Path | None = None) -> int | None:
    """Number of images in a pool; None for one that is drawn or rendered and has no end.

    A mixture ends with the first of its parts.
    """
    if pool == "in":
        return len(load(dataset, "pool", root)[1])
    family, _, other = pool.partition(":")
    if family == "dataset":
        return sum(len(load(other, split, root)[1]) for split in ("train", "val", "pool"))
    if family == "mix":
        few, share, rest = parse_mix(pool)
        parts = (
            (pool_size(few, dataset, root), share),
            (pool_size(rest, dataset, root), 1 - share),
        )
        # A part has its share of any beginning of the mixture to one image.
        ends = [max(1, int((size - 1) / part)) for size, part in parts if size is not None]
        return min(ends, default=None)
    return None


def draw_queries(
    spec: AttackSpec, dataset: str, root: Path | None = None, *, fewer: bool = False
) -> QuerySet:
    """Draw what the attacker starts from.

    Args:
        spec: names attack, pool, budget and seed.
        dataset: the victim's data set.
        root: data folder; None: the default one.
        fewer: use all of a pool that has fewer images than the budget, instead of refusing it;
            the attacker then asks fewer queries than its budget.

    Raises:
        InputError: a pool whose images are missing, or that is too small.
    """
    shape = dataset_info(dataset).shape
    if starts_from(spec.attack) == "free":
        return QuerySet(NO_POOL, DATA_FREE, None, shape, _labelled(spec, dataset, root))
    count = query_count(spec, dataset, root)
    size = pool_size(spec.pool, dataset, root) if fewer else None
    pool = query_pool(
        spec.pool, dataset, count if size is None else min(count, size), spec.seed, root
    )
    return QuerySet(pool.name, pool.kind, pool.images, shape, _labelled(spec, dataset, root))


def _labelled(spec: AttackSpec, dataset: str, root: Path | None) -> TransferSet | None:
    """Ten images of each class with their labels, of those that attackers may have."""
    if not any(entry.needs_labelled for entry in _entries(spec.learner)):
        return None
    images, labels = load(dataset, "pool", root)
    order = substream(spec.seed, "labelled").permutation(len(labels))
    classes = len(dataset_info(dataset).classes)
    rows = np.concatenate([order[labels[order] == k][:_LABELLED] for k in range(classes)])
    return TransferSet(images[rows], np.eye(classes, dtype=np.float32)[labels[rows]])


def run_attack(
    spec: AttackSpec,
    predictor: Predictor,
    queries: QuerySet,
    *,
    defence: Defence | None = None,
    shadow: ShadowPairs | None = None,
    remember: Path | None = None,
) -> AttackOutcome:
    """Attack a new victim made of ``predictor``.

    Args:
        spec: what to do.
        predictor: the network under attack.
        queries: what the attacker starts from.
        defence: the defence that ``spec`` names, where it needs material; None: made from its name.
        shadow: pairs for learners that need them.
        remember: folder of trained clones; saves training the same clone again.

    Raises:
        InputError: names or material that do not fit.
    """
    if defence is None:
        defence = make_defence(spec.defence, seed=spec.seed)
    learner = _learner(spec, shadow, remember, queries.labelled, deepcopy(defence))
    attack = make_attack(spec.attack, learner, spec.seed)
    timed = TimedPredictor(predictor)
    victim = Victim(timed, oracle=spec.oracle, budget=spec.budget, defence=defence)
    start = time.perf_counter()
    result = attack.run(victim, queries.shape if queries.images is None else queries.images)
    seconds = time.perf_counter() - start
    return AttackOutcome(
        spec, result, learner.name, queries, timed.seconds, seconds - timed.seconds
    )
