"""The page's section on attacks: every group's worst case, curves, every clone."""

from collections.abc import Iterable
from typing import get_args

from divqat_brevitas.extraction.evaluation.summary import BASELINE, Group, attackers, worst_case
from fpga_flow.report import figures
from fpga_flow.report.blocks import charts, difference, folded, fraction, note, paragraph, small
from fpga_flow.report.markup import Markup, amount, element, joined, table, text
from fpga_flow.report.runs import clone_spread, compared, in_order, named
from fpga_flow.report.schema import AttackRow, Oracle, Results, SummaryRow
from fpga_flow.report.text import POOLS, counted, percent
from fpga_flow.report.words import not_run

_HEAD = (
    "Victim",
    "Oracle",
    "Query pool",
    "Queries",
    "Victim's accuracy",
    "Naive clone",
    "Worst-case clone",
    "Worst case ÷ victim",
    "Queries to 90 %",
    "Minus plain QAT's, same oracle",
    "Minus plain QAT's, labels only",
    "Worst-case attack",
    "Seeds",
)


def attacks(results: Results) -> list[Markup]:
    """Worst cases beside plain QAT and a top-1 interface, the curves, and every clone."""
    if not results.attacks:
        return [paragraph(f"Attacks: {not_run(results, 'attack')}.")]
    oracles, kinds = get_args(Oracle), list(POOLS)
    victims = in_order(results, {row.victim for row in results.summary})
    rows = sorted(
        results.summary,
        key=lambda row: (
            -row.budget,
            kinds.index(row.pool_kind),
            oracles.index(row.oracle),
            victims.index(row.victim),
        ),
    )
    most = max((row.budget for row in rows), default=0)
    largest = [row for row in rows if row.budget == most]
    smaller = [row for row in rows if row.budget != most]
    parts = [
        paragraph(
            "The attacker sees images and responses only, and trains a clone on them. Naive: "
            "random queries, responses used as they come. Worst case: the best mean clone accuracy "
            "over everything tried on every victim seed, for that victim, oracle, kind of query "
            "pool and budget."
        ),
        _worst_cases(results, largest, f"Clones at {counted(most, 'query')}, the largest budget"),
        note(
            f"Differences are the worst case minus that of plain QAT ({BASELINE}), behind the "
            "same oracle and defence, and behind an oracle that shows labels only. From three "
            "trained victims on, their intervals are over victim seeds; with fewer they are about "
            "the trained models at hand."
        ),
    ]
    if smaller:
        parts.append(folded("Smaller budgets", _worst_cases(results, smaller, "Smaller budgets")))
    parts += [
        element("h3", "Worst-case clone against query budget"),
        note(
            "Whiskers: lowest and highest victim seed, where there are several. Grey band: the "
            "attacked victims' own accuracies. The vertical axes do not begin at zero."
        ),
        charts(figures.clone_curves(results)),
        folded(f"Every clone ({len(results.attacks):,})", _every_clone(results.attacks)),
    ]
    return parts


def _worst_cases(results: Results, rows: Iterable[SummaryRow], caption: str) -> Markup:
    cells = []
    for row in rows:
        group = Group(row.victim, row.pool_kind, row.budget, (row.oracle,), row.defence)
        same = Group(BASELINE, row.pool_kind, row.budget, (row.oracle,), row.defence)
        labels = Group(BASELINE, row.pool_kind, row.budget, ("top1",))
        share = row.worst_case_clone_accuracy / row.victim_accuracy if row.victim_accuracy else None
        cells.append(
            (
                named(row.victim, row.defence),
                row.oracle,
                POOLS[row.pool_kind],
                amount(row.budget),
                fraction(row.victim_accuracy),
                fraction(row.naive_clone_accuracy),
                joined((fraction(row.worst_case_clone_accuracy), _range(results, group))),
                fraction(share),
                amount(row.queries_to_90_percent) if row.queries_to_90_percent else "not reached",
                _difference(results, group, same),
                _difference(results, group, labels),
                row.worst_case_attack,
                amount(row.seeds),
            )
        )
    return table(caption, _HEAD, cells, ("Oracle", "Query pool", "Worst-case attack"))


def _range(results: Results, group: Group) -> Markup:
    best = worst_case(attackers(group.of(results.attacks)))
    if best is None or len(best.by_victim) < 2:
        return text("")
    spread = clone_spread(best)
    return small(f"{percent(spread.low)} to {percent(spread.high)}")


def _difference(results: Results, ours: Group, theirs: Group) -> Markup | str:
    return "is the baseline" if ours == theirs else difference(compared(results, ours, theirs))


def _every_clone(rows: Iterable[AttackRow]) -> Markup:
    head = (
        "Victim",
        "Victim seed",
        "Engine",
        "Oracle",
        "Defence",
        "Attack",
        "Treatment",
        "Pool",
        "Budget",
        "Used",
        "Surrogate",
        "Seed",
        "Clone accuracy",
        "Agreement",
    )
    cells = [
        (
            row.victim,
            row.victim_seed,
            row.engine,
            row.oracle,
            row.defence,
            row.attack,
            row.treatment,
            " ".join(filter(None, (row.pool, f"({row.pool_kind})"))),
            amount(row.budget),
            amount(row.queries_used),
            row.surrogate,
            row.seed,
            fraction(row.clone_accuracy),
            fraction(row.agreement),
        )
        for row in rows
    ]
    return table("Every clone", head, cells, (*head[2:8], "Surrogate"))
