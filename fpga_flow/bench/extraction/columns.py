"""What the columns of the benchmark's tables hold."""

from fpga_flow.bench.extraction.collect import order_of
from fpga_flow.bench.extraction.markdown import NONE, cost, difference, percentages
from fpga_flow.report.analysis import BASELINE, deployed, variants
from fpga_flow.report.contest import Side, Thief, accuracy_difference, contest
from fpga_flow.report.schema import Results
from fpga_flow.report.statistics import seed_means


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
    for kind in ("out", "in", "free"):
        budgets = [
            row.budget
            for row in results.attacks
            if row.pool_kind == kind
            and (row.defence or "none") == defence
            and victim in (None, row.victim)
        ]
        if budgets:
            found[kind] = max(budgets)
    return found


def clones(thief: Thief | None) -> str:
    """Accuracy of a thief's clones over victim seeds."""
    return NONE if thief is None else percentages(list(seed_means(thief.values).values()))


def made_by(thief: Thief | None) -> str:
    """What a thief did."""
    return NONE if thief is None else thief.name


def paid(results: Results, victim: str) -> str:
    """What a victim's accuracy lacks of plain QAT's."""
    return NONE if victim == BASELINE else cost(accuracy_difference(results, victim, BASELINE))


def with_cost(results: Results, victim: str) -> str:
    """A victim's accuracy, flagged where it costs more than a point against plain QAT."""
    lost = paid(results, victim)
    return accuracy(results, victim) + (f" ({lost})" if lost.startswith("costs") else "")


def against(results: Results, ours: Side, theirs: Side) -> str:
    """The difference between two sides; † where ours met fewer thieves."""
    if ours == theirs:
        return NONE
    found = contest(results, ours, theirs)
    if found is None:
        return NONE
    return difference(found.difference, " †" if found.lacking else "")
