"""The one rule that decides how well attackers did, and by how much two victims differ.

Every table, page, claim and line of text calls this module.

* A *group* is a victim behind a defence and an oracle (or several), attacked with one kind of query
  pool and one query budget. In- and out-of-distribution and data-free attackers never mix: an
  attacker with the victim's own kind of images hardly needs the victim.
* An *attacker* is everything about an attack but the seeds: oracle, attack, learner, pool,
  surrogate and engine. Its clone accuracy is the mean over victim seeds of means over attack seeds.
* The *worst case* of a group is its best attacker, among those run on every victim seed of the
  group; where none was, among those run on most. An attacker run on one lucky victim decides
  nothing. A maximum of noisy means is biased upwards: it errs against the defence.
* *Naive* is the same for an attacker without tricks: KnockoffNets with random queries and
  responses used as they come. It is never above the worst case.
* The *difference* of two victims is the worst case of the one minus the worst case of the other
  (:func:`compare`), paired by victim seed and attack seed, with the intervals of
  :mod:`divqat_brevitas.extraction.evaluation.statistics`. Both choices are made on the very clones
  that are compared, and no interval accounts for them.
* The *cost* of a defence is the baseline's own accuracy minus the victim's.
* ``queries_to_90_percent`` is the smallest budget whose worst-case clone reaches 90 % of the
  victim's accuracy; None if none did.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import SimpleNamespace
from typing import Any, TypedDict, TypeVar

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.records import AttackFields, Trained
from divqat_brevitas.extraction.evaluation.statistics import (
    Difference,
    Pair,
    difference,
    mean_over_seeds,
    seed_means,
)

BASELINE = "qat"
SOFT_FAMILY = ("logits", "soft", "topk", "rounded")
ALL_ORACLES = (*SOFT_FAMILY, "top1")
MATCHED = 0.01
"""Victims within one point of accuracy count as equally accurate."""
ENOUGH = 0.9
"""Share of the victim's accuracy at which a clone replaces it, for ``queries_to_90_percent``."""
_ULP = 1e-12  # accuracies are ratios of counts: 0.9 * 0.9 and 0.81 differ in their last bit


E = TypeVar("E", bound=AttackFields)


class SummaryRow(TypedDict):
    """The worst case of one group behind one oracle; accuracies are fractions of 1.

    ``seeds`` counts the pairs of victim seed and attack seed behind the worst case,
    ``victim_seeds`` the trained victims; ``naive_clone_accuracy`` is None where no naive attacker
    was run on all of them.
    """

    victim: str
    defence: str
    oracle: str
    pool_kind: str
    budget: int
    victim_accuracy: float
    worst_case_clone_accuracy: float
    worst_case_attack: str
    naive_clone_accuracy: float | None
    queries_to_90_percent: int | None
    seeds: int
    victim_seeds: int


@dataclass(frozen=True)
class Group:
    """Attacks that are judged together.

    Attributes:
        victim: variant.
        pool_kind: of the queries: "in", "out" or "free".
        budget: queries.
        oracles: what attackers may see; the best over all of them counts.
        defence: of the responses.
    """

    victim: str
    pool_kind: str
    budget: int
    oracles: tuple[str, ...] = ALL_ORACLES
    defence: str = "none"

    def of(self, rows: Iterable[E]) -> list[E]:
        """The rows of this group."""
        return [row for row in rows if row.budget == self.budget and self._holds(row)]

    def budgets(self, rows: Iterable[AttackFields]) -> list[int]:
        """The budgets at which this victim was attacked in this way, smallest first."""
        return sorted({row.budget for row in rows if self._holds(row)})

    def _holds(self, row: AttackFields) -> bool:
        return (
            row.victim == self.victim
            and row.pool_kind == self.pool_kind
            and row.oracle in self.oracles
            and defence_of(row) == self.defence
        )


@dataclass(frozen=True)
class Attacker:
    """Everything about an attack but the seeds, and the accuracies of its clones.

    Attributes:
        method: oracle, attack, learner, pool and surrogate.
        engine: what computed the responses.
        values: clone accuracy by (victim seed, attack seed).
    """

    method: tuple[str, str, str, str, str]
    engine: str
    values: dict[Pair, float]

    @property
    def oracle(self) -> str:
        """What the victim showed."""
        return self.method[0]

    @property
    def attack(self) -> str:
        """Attack, learner, pool, surrogate: ``knockoff-random / argmax / letters / vgg-small``."""
        return " / ".join(self.method[1:])

    @property
    def name(self) -> str:
        """Attack and oracle: ``knockoff-random / argmax / letters / vgg-small on soft``."""
        return f"{self.attack} on {self.oracle}"

    @property
    def mean(self) -> float:
        """Mean clone accuracy over seeds."""
        return mean_over_seeds(self.values)

    @property
    def by_victim(self) -> dict[int, float]:
        """Mean clone accuracy by victim seed."""
        return seed_means(self.values)


@dataclass(frozen=True)
class Comparison:
    """The worst case of one victim and the worst case of another.

    Attributes:
        ours: the worst case of the victim.
        theirs: the worst case of the baseline.
        difference: clone accuracy, ours minus theirs; None without a common pair of seeds.
        cost: the baseline's own accuracy minus the victim's, over common victim seeds; None where
            there are none.
        missing: attackers of the baseline that were not run on the victim (with equal oracles
            only); ``theirs`` leaves them out, unless no other attacker is left.
        better_on_fewer: attackers on fewer victim seeds that are better there than ``ours``.
    """

    ours: Attacker
    theirs: Attacker
    difference: Difference | None
    cost: Difference | None
    missing: tuple[str, ...]
    better_on_fewer: tuple[str, ...]


def defence_of(row: AttackFields) -> str:
    """The defence of a row; "none" where the row has none."""
    return row.defence or "none"


def attackers(rows: Iterable[AttackFields]) -> list[Attacker]:
    """The rows of a group by attacker, in an order that does not depend on that of the rows."""
    groups_of_rows: dict[tuple[Any, ...], dict[Pair, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        method = (row.oracle, row.attack, row.treatment or "–", row.pool or "–", row.surrogate)
        groups_of_rows[method, row.engine][row.victim_seed, row.seed].append(row.clone_accuracy)
    return [
        Attacker(method, engine, {pair: fmean(values) for pair, values in pairs.items()})
        for (method, engine), pairs in sorted(groups_of_rows.items())
    ]


def worst_case(candidates: Sequence[Attacker]) -> Attacker | None:
    """The best attacker of a group by the rule of the module; None without attackers.

    Example:
        >>> def attacker(name, *accuracies):
        ...     method = ("soft", name, "soft", "letters", "mlp")
        ...     return Attacker(method, "integer", {(at, 0): a for at, a in enumerate(accuracies)})
        >>> worst_case([attacker("lucky", 0.9), attacker("steady", 0.6, 0.8)]).attack
        'steady / soft / letters / mlp'
    """
    return max(_on_every_victim(candidates), key=lambda attacker: attacker.mean, default=None)


def naive(candidates: Sequence[Attacker]) -> Attacker | None:
    """The best naive attacker of a group; None where none was run on every victim seed."""
    plain = [
        attacker
        for attacker in _on_every_victim(candidates)
        if attacker.method[1:3] == ("knockoff-random", "soft")
    ]
    return max(plain, key=lambda attacker: attacker.mean, default=None)


def compare(
    rows: Iterable[AttackFields],
    victims: Iterable[Trained],
    ours: Group,
    theirs: Group,
    images: int | None = None,
) -> Comparison | None:
    """Compare the worst cases of two groups."""
    rows, victims = list(rows), list(victims)
    candidates, others = attackers(ours.of(rows)), attackers(theirs.of(rows))
    mine, base = worst_case(candidates), worst_case(others)
    if mine is None or base is None:
        return None
    met = {attacker.method for attacker in candidates}
    missing: list[str] = []
    if ours.oracles == theirs.oracles:
        missing = [attacker.name for attacker in others if attacker.method not in met]
        base = worst_case([attacker for attacker in others if attacker.method in met]) or base
    return Comparison(
        ours=mine,
        theirs=base,
        difference=difference(mine.values, base.values, images),
        cost=accuracy_difference(victims, theirs.victim, ours.victim, images),
        missing=tuple(missing),
        better_on_fewer=tuple(a.name for a in candidates if _better_on_fewer(a, mine)),
    )


def accuracy_difference(
    victims: Iterable[Trained], ours: str, theirs: str, images: int | None = None
) -> Difference | None:
    """Difference of two variants' own accuracies on their engines, paired by victim seed."""
    own: dict[str, dict[Pair, float]] = {ours: {}, theirs: {}}
    for row in victims:
        if row.variant in own:
            own[row.variant][row.seed, 0] = deployed(row)
    return difference(own[ours], own[theirs], images)


def largest_common_budget(rows: Sequence[AttackFields], ours: Group, theirs: Group) -> int | None:
    """The largest budget at which both were attacked; the groups' own budgets do not matter."""
    return max({*ours.budgets(rows)} & {*theirs.budgets(rows)}, default=None)


def deployed(victim: Trained) -> float:
    """Accuracy on the engine that users and attackers ask; else the accuracy in torch."""
    return victim.accuracy if victim.accuracy_engine is None else victim.accuracy_engine


def victim_accuracy(rows: Iterable[AttackFields], victims: Iterable[Trained]) -> float:
    """Mean accuracy of the trained victims that these rows of one group attack.

    Raises:
        InputError: a victim without a row, or with two.
    """
    accuracies: dict[tuple[str, int], float] = {}
    for row in victims:
        key = (row.variant, row.seed)
        if key in accuracies:
            raise InputError(
                f"victim {key[0]!r} of seed {key[1]} has two rows; give each variant its own name."
            )
        accuracies[key] = deployed(row)
    attacked = sorted({(row.victim, row.victim_seed) for row in rows})
    for name, seed in attacked:
        if (name, seed) not in accuracies:
            raise InputError(
                f"victim {name!r} of seed {seed} was attacked but has no row among the victims."
            )
    return fmean(accuracies[victim] for victim in attacked)


def queries_to_90_percent(
    rows: Iterable[AttackFields], victims: Iterable[Trained], group: Group
) -> int | None:
    """Smallest budget whose worst-case clone reaches 90 % of the victim's accuracy."""
    rows, victims = list(rows), list(victims)
    for budget in group.budgets(rows):
        own = replace(group, budget=budget).of(rows)
        best = worst_case(attackers(own))
        if best is not None and best.mean >= ENOUGH * victim_accuracy(own, victims) - _ULP:
            return budget
    return None


def summarize(
    attack_rows: Iterable[AttackFields | Mapping[str, Any]],
    victim_rows: Iterable[Trained | Mapping[str, Any]],
) -> list[SummaryRow]:
    """The worst case of every victim, defence, oracle, kind of query pool and budget.

    Args:
        attack_rows: :class:`AttackRow` objects, others with these attributes, or rows of
            results.json.
        victim_rows: rows of "victims" in results.json: "variant", "seed", "accuracy" and, where it
            was measured, "accuracy_engine", which then counts.

    Returns:
        Rows in the order in which their groups first appear.

    Raises:
        InputError: the same attack twice, an attacked victim without a row, or with two.
    """
    rows: list[Any] = [_object(row) for row in attack_rows]
    victims: list[Any] = [_object(row, accuracy_engine=None) for row in victim_rows]
    _no_repeats(rows)
    groups = dict.fromkeys(
        Group(row.victim, row.pool_kind, row.budget, (row.oracle,), defence_of(row)) for row in rows
    )
    # Not the budget: it is the same for all budgets of a group.
    enough: dict[Group, int | None] = {}
    summary = []
    for group in groups:
        own = group.of(rows)
        candidates = attackers(own)
        best, plain = worst_case(candidates), naive(candidates)
        assert best is not None  # a group has a row
        curve = replace(group, budget=0)
        if curve not in enough:
            enough[curve] = queries_to_90_percent(rows, victims, curve)
        summary.append(
            SummaryRow(
                victim=group.victim,
                defence=group.defence,
                oracle=group.oracles[0],
                pool_kind=group.pool_kind,
                budget=group.budget,
                victim_accuracy=victim_accuracy(own, victims),
                worst_case_clone_accuracy=best.mean,
                worst_case_attack=best.attack,
                naive_clone_accuracy=None if plain is None else plain.mean,
                queries_to_90_percent=enough[curve],
                seeds=len(best.values),
                victim_seeds=len(best.by_victim),
            )
        )
    return summary


def _object(row: Any, **missing: Any) -> Any:
    return SimpleNamespace(**(missing | dict(row))) if isinstance(row, Mapping) else row


def _no_repeats(rows: Iterable[AttackFields]) -> None:
    identities: set[tuple[Any, ...]] = set()
    for row in rows:
        identity = (
            *(row.victim, row.victim_seed, row.engine, row.oracle, defence_of(row), row.attack),
            *(row.treatment, row.pool, row.pool_kind, row.budget, row.surrogate, row.seed),
        )
        if identity in identities:
            raise InputError(f"the same attack has two result rows: {identity}. Remove one.")
        identities.add(identity)


def _on_every_victim(candidates: Sequence[Attacker]) -> list[Attacker]:
    """The attackers on every victim seed of their group, else those on most."""
    most = max((len(attacker.by_victim) for attacker in candidates), default=0)
    return [attacker for attacker in candidates if len(attacker.by_victim) == most]


def _better_on_fewer(attacker: Attacker, best: Attacker) -> bool:
    means = best.by_victim
    if not attacker.by_victim.keys() < means.keys():
        return False
    return attacker.mean > fmean(means[seed] for seed in attacker.by_victim)
