"""What the columns of the benchmark's tables hold."""

from benchmarks.extraction.collect import order_of
from benchmarks.extraction.markdown import NONE, cost, difference, percentages
from divqat_brevitas.extraction.evaluation.summary import (
    BASELINE,
    Attacker,
    Group,
    accuracy_difference,
    attackers,
    defence_of,
    deployed,
    naive,
    worst_case,
)
from fpga_flow.report.runs import compared, variants
from fpga_flow.report.schema import Results
from fpga_flow.report.text import POOLS


def accuracy(results: Results, victim: str) -> str:
    """A variant's own accuracy over its seeds."""
    return percentages([deployed(row) for row in results.victims if row.variant == victim])


def in_order(results: Results) -> list[str]:
    """The variants: float first, then plain QAT."""
    return sorted(variants(results), key=order_of)


def largest_budgets(
    results: Results, victim: str | None = None, defence: str = "none"
) -> dict[str, int]:
    """The largest budget of each kind of queries, out-of-distribution first."""
    found: dict[str, int] = {}
    for kind in POOLS:
        budgets = [
            row.budget
            for row in results.attacks
            if row.pool_kind == kind and defence_of(row) == defence and victim in (None, row.victim)
        ]
        if budgets:
            found[kind] = max(budgets)
    return found


def worst_of(results: Results, group: Group) -> Attacker | None:
    """The worst case of a group; None where it was not attacked."""
    return worst_case(attackers(group.of(results.attacks)))


def naive_of(results: Results, group: Group) -> Attacker | None:
    """The naive attack of a group; None where there is none."""
    return naive(attackers(group.of(results.attacks)))


def clones(attacker: Attacker | None) -> str:
    """Accuracy of an attacker's clones over victim seeds."""
    return NONE if attacker is None else percentages(list(attacker.by_victim.values()))


def made_by(attacker: Attacker | None) -> str:
    """What an attacker did."""
    return NONE if attacker is None else attacker.name


def paid(results: Results, victim: str) -> str:
    """What a victim's accuracy lacks of plain QAT's."""
    return (
        NONE if victim == BASELINE else cost(accuracy_difference(results.victims, victim, BASELINE))
    )


def with_cost(results: Results, victim: str) -> str:
    """A victim's accuracy, flagged where it costs more than a point against plain QAT."""
    lost = paid(results, victim)
    return accuracy(results, victim) + (f" ({lost})" if lost.startswith("costs") else "")


def against(results: Results, ours: Group, theirs: Group) -> str:
    """The difference between two groups; † where ours met fewer attackers."""
    if ours == theirs:
        return NONE
    found = compared(results, ours, theirs)
    if found is None:
        return NONE
    return difference(found.difference, " †" if found.missing else "")
