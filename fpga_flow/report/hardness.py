"""How hard are these trained models to steal? The owner's question, answered first.

One row a trained variant, defence and kind of query pool, at the largest budget it was attacked
with, the deployed variant first: the worst case over all oracles, its interval, the smallest budget
that suffices for a clone of 90 % of the victim's accuracy, and plain QAT beside it. Each row is
about the models at hand. What holds of the method is :mod:`fpga_flow.report.claims`'.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from divqat_brevitas.extraction.evaluation.statistics import (
    Difference,
    Interval,
    basis,
    victims_interval,
)
from divqat_brevitas.extraction.evaluation.summary import (
    ALL_ORACLES,
    BASELINE,
    Attacker,
    Comparison,
    Group,
    attackers,
    defence_of,
    queries_to_90_percent,
    victim_accuracy,
    worst_case,
)
from fpga_flow.report.runs import (
    POOLS,
    Spread,
    clone_spread,
    compared,
    counted,
    deployed_first,
    image_count,
    listed,
    named,
    percent,
    points,
    variants,
    with_interval,
)
from fpga_flow.report.schema import Results, SummaryRow


@dataclass(frozen=True)
class Hardness:
    """How far attackers got with one trained variant and one kind of query pool."""

    group: Group  # the victim, its defence, the kind of pool and the largest budget
    victim_accuracy: float  # mean over the attacked victims
    victim_seeds: int  # trained victims behind the worst case
    worst: Attacker  # the worst case
    interval: Interval | None  # 95 %, of its clone accuracy, about these trained victims
    basis: str  # what the interval is over
    queries_to_90_percent: int | None  # see :mod:`divqat_brevitas.extraction.evaluation.summary`
    plain: Attacker | None  # plain QAT's worst case in the same group, without a defence
    labels_only: Attacker | None  # plain QAT's worst case where only labels are shown
    # With plain QAT; None for plain QAT itself, or where it was not attacked
    comparison: Comparison | None

    @property
    def victim(self) -> str:
        """The variant with its defence, where it has one."""
        return named(self.group.victim, self.group.defence)

    @property
    def pool(self) -> str:
        """The kind of query pool, in words."""
        return POOLS[self.group.pool_kind]


def hardness(results: Results) -> list[Hardness]:
    """The rows, the deployed variant first; none where nothing was attacked."""
    return [row for victim in deployed_first(results) for row in _rows(results, victim)]


def records(results: Results) -> list[dict[str, Any]]:
    """The same as JSON objects."""
    return [
        {
            "victim": row.group.victim,
            "defence": row.group.defence,
            "pool_kind": row.group.pool_kind,
            "budget": row.group.budget,
            "victim_accuracy": row.victim_accuracy,
            "victim_seeds": row.victim_seeds,
            "worst_case_clone_accuracy": row.worst.mean,
            "worst_case_attack": row.worst.name,
            "interval": None if row.interval is None else [row.interval.low, row.interval.high],
            "interval_is": row.basis,
            "queries_to_90_percent": row.queries_to_90_percent,
            "plain_qat": None if row.plain is None else row.plain.mean,
            "plain_qat_labels_only": None if row.labels_only is None else row.labels_only.mean,
            "minus_plain_qat": paired and asdict(paired),
        }
        for row in hardness(results)
        for paired in (row.comparison and row.comparison.difference,)
    ]


def heading(results: Results) -> str:
    """The answer for the deployed variant in one sentence."""
    rows = hardness(results)
    if not rows:
        trained = counted(len(variants(results)), "victim")
        return f"{trained} on {results.dataset.name}, not attacked yet"
    first = [row for row in rows if row.victim == rows[0].victim]
    clones = listed([f"{percent(row.worst.mean)} with {row.pool} queries" for row in first])
    return (
        f"{first[0].victim} on {results.dataset.name} gets {percent(first[0].victim_accuracy)} "
        f"of test images right, its worst-case clone {clones}"
    )


def sentence(row: Hardness) -> str:
    """One row in plain words."""
    parts = [
        f"With {counted(row.group.budget, row.pool + ' query')}, the worst-case clone of "
        f"{row.victim} gets {percent(row.worst.mean)} of test images right"
        f" ({interval(row)}); {row.victim} itself gets "
        f"{percent(row.victim_accuracy)}.",
        reached(row),
        f"The attack: {row.worst.name}.",
    ]
    if row.comparison is not None and row.comparison.difference is not None:
        parts.append(difference(row.comparison, row.comparison.difference))
    if row.labels_only is not None and row.group.victim != BASELINE:
        parts.append(f"Plain QAT that shows labels only: {percent(row.labels_only.mean)}.")
    return " ".join(parts)


def interval(row: Hardness) -> str:
    """The interval of a worst case, and what it is over."""
    if row.interval is None:
        return row.basis
    ends = f"{100 * row.interval.low:.1f} to {100 * row.interval.high:.1f} %"
    return f"95 % interval {ends}, {row.basis}"


def reached(row: Hardness) -> str:
    """From how many queries on a clone reaches 90 % of the victim's accuracy."""
    if row.queries_to_90_percent is None:
        return f"No clone reaches 90 % of that with up to {row.group.budget:,} queries."
    return f"{row.queries_to_90_percent:,} queries suffice for a clone with 90 % of that."


def difference(found: Comparison, paired: Difference) -> str:
    """How the worst case differs from plain QAT's, and what that is a statement about."""
    met = ", among attacks made on both" if found.missing else ""
    shared = "" if found.ours.values.keys() == found.theirs.values.keys() else " on common seeds"
    models = "this model" if paired.victim_seeds == 1 else f"these {paired.victim_seeds} models"
    about = "the method" if paired.about_method else models
    shown = ""
    if paired.interval is not None:
        ends = (paired.interval.low, paired.interval.high)
        low, high = (points(end).removesuffix(" points") for end in ends)
        shown = f"95 % interval {low} to {high} points, "
    return (
        f"The worst-case clone of plain QAT gets {percent(found.theirs.mean)}{met}: "
        f"{points(paired.mean)}{shared} ({shown}{paired.over}; a statement about {about})."
    )


def line(row: Hardness) -> str:
    """One row for a terminal."""
    enough = row.queries_to_90_percent
    parts = [
        f"{row.victim}, {row.pool}, {counted(row.group.budget, 'query')}: worst-case clone "
        f"{percent(row.worst.mean)} ({interval(row)}) of a victim with "
        f"{percent(row.victim_accuracy)}",
        f"90 % of that {'not reached' if enough is None else f'at {enough:,} queries'}",
    ]
    if row.comparison is not None:
        paired = row.comparison.difference
        over = "" if paired is None else f", {paired.over}"
        parts.append(f"minus plain QAT's {with_interval(paired)}{over}")
    if row.labels_only is not None:
        parts.append(f"plain QAT's with labels only {percent(row.labels_only.mean)}")
    return "; ".join([*parts, row.worst.name])


def clones_line(results: Results) -> str:
    """The worst cases on one line, for a terminal; empty where nothing was attacked."""
    told: dict[tuple[str, int], list[str]] = {}
    for row in hardness(results):
        clone = f"{row.pool} {percent(row.worst.mean)}"
        told.setdefault((row.victim, row.group.budget), []).append(clone)
    if not told:
        return ""
    budgets = {budget for _, budget in told}
    same = len(budgets) == 1
    shown = [
        f"{victim} {', '.join(clones)}" + ("" if same else f" ({budget:,} queries)")
        for (victim, budget), clones in told.items()
    ]
    most = counted(max(budgets), "query") if same else "the queries named"
    return f"{'; '.join(shown)} (worst case at {most})"


def _rows(results: Results, victim: str) -> Iterator[Hardness]:
    """The undefended interface first, then the others as they come."""
    rows = results.attacks
    defences = dict.fromkeys(defence_of(row) for row in rows if row.victim == victim)
    for defence in sorted(defences, key=lambda name: name != "none"):
        for kind in POOLS:
            budgets = Group(victim, kind, 0, defence=defence).budgets(rows)
            if budgets:
                yield _row(results, Group(victim, kind, budgets[-1], defence=defence))


def _row(results: Results, group: Group) -> Hardness:
    rows, images = results.attacks, image_count(results)
    own = group.of(rows)
    worst = worst_case(attackers(own))
    assert worst is not None  # a group has a row
    like = replace(group, victim=BASELINE, defence="none")
    return Hardness(
        group=group,
        victim_accuracy=victim_accuracy(own, results.victims),
        victim_seeds=len(worst.by_victim),
        worst=worst,
        interval=victims_interval(worst.values, images),
        basis=basis(worst.values, images),
        queries_to_90_percent=queries_to_90_percent(rows, results.victims, group),
        plain=worst_case(attackers(like.of(rows))),
        labels_only=worst_case(attackers(replace(like, oracles=("top1",)).of(rows))),
        comparison=None if like == group else compared(results, group, like),
    )


@dataclass(frozen=True)
class WorstCase:
    """A row of the summary, with what it is compared to."""

    row: SummaryRow  # the worst case of a group behind one oracle
    clone: Spread  # its accuracy over victim seeds
    # Against plain QAT behind the same oracle and defence; None where that was not attacked, a
    # sentence where this is it
    same_oracle: Comparison | str | None
    labels_only: Comparison | str | None  # against plain QAT that shows labels only, likewise

    @property
    def victim(self) -> str:
        """The variant with its defence, where it has one."""
        return named(self.row.victim, self.row.defence)


def worst_cases(results: Results) -> list[WorstCase]:
    """The summary's rows: large budgets first, then by query pool, oracle and victim."""
    victims = variants(results)
    kinds = list(POOLS)

    def place(row: SummaryRow) -> tuple[int, ...]:
        known = victims.index(row.victim) if row.victim in victims else len(victims)
        return -row.budget, kinds.index(row.pool_kind), ALL_ORACLES.index(row.oracle), known

    return [_worst_case(results, row) for row in sorted(results.summary, key=place)]


def _worst_case(results: Results, row: SummaryRow) -> WorstCase:
    group = Group(row.victim, row.pool_kind, row.budget, (row.oracle,), row.defence)
    worst = worst_case(attackers(group.of(results.attacks)))
    same, labels = (
        "is the baseline" if like == group else compared(results, group, like)
        for like in (
            replace(group, victim=BASELINE),
            replace(group, victim=BASELINE, oracles=("top1",), defence="none"),
        )
    )
    clone = clone_spread(worst) if worst else Spread((row.worst_case_clone_accuracy,))
    return WorstCase(row, clone, same, labels)
