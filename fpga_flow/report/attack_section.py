"""The page's section on attacks: worst cases, curves, every clone."""

from collections.abc import Iterable
from typing import get_args

from fpga_flow.report import figures
from fpga_flow.report.analysis import (
    BASELINE,
    MIN_SEEDS,
    Comparison,
    cell,
    compare,
    defence_of,
    in_order,
    named,
    worst_case,
)
from fpga_flow.report.blocks import charts, folded, fraction, note, paragraph
from fpga_flow.report.markup import Markup, amount, element, joined, number, table, text
from fpga_flow.report.schema import AttackRow, Oracle, Results, SummaryRow
from fpga_flow.report.text import counted, percent, points
from fpga_flow.report.words import POOLS, not_run


def attacks(results: Results) -> list[Markup]:
    """Worst cases beside plain QAT and a top-1 interface, the curves, and every clone."""
    if not results.attacks:
        return [paragraph(f"Attacks: {not_run(results, 'attack')}.")]
    oracles = get_args(Oracle)
    victims = in_order(results, {row.victim for row in results.summary})
    rows = sorted(
        results.summary,
        key=lambda row: (
            -row.budget,
            oracles.index(row.oracle),
            victims.index(row.victim),
        ),
    )
    most = max((row.budget for row in rows), default=0)
    largest = [row for row in rows if row.budget == most]
    smaller = [row for row in rows if row.budget != most]
    parts = [
        paragraph(
            "The thief sees images and answers only, and trains a clone on them. Naive: random "
            "queries, answers used as they come. Best: the highest clone accuracy over everything "
            "tried for that victim, oracle and budget; an attack that was not tried may do "
            "better. It is chosen by test accuracy, which favours the thief, alike for every "
            "victim."
        ),
        _worst_cases(results, largest, f"Clones at {counted(most, 'query')}, the largest budget"),
        note(
            f"Differences are the best clone's accuracy minus that of plain QAT's ({BASELINE}), "
            "behind the same oracle and behind one that answers with the label only. "
            "“Lower” and “higher” are said only where every victim seed lies beyond "
            f"every seed of the other, with at least {MIN_SEEDS} each; at three, chance alone does "
            "that in one comparison of ten. “No difference shown” is not “equal”. "
            "“Not comparable”: the two were not attacked in the same ways."
        ),
    ]
    if len({row.pool_kind for row in results.attacks}) > 1:
        parts.append(_by_pool_kind(results, largest))
    if smaller:
        parts.append(folded("Smaller budgets", _worst_cases(results, smaller, "Smaller budgets")))
    parts += [
        element("h3", "Best clone against query budget"),
        note(
            "Whiskers: lowest and highest victim seed, where there are several. Grey band: the "
            "attacked victims' own accuracies. The vertical axes do not begin at zero."
        ),
        charts(figures.clone_curves(results)),
        folded(f"Every clone ({len(results.attacks):,})", _every_clone(results.attacks)),
    ]
    return parts


def _worst_cases(results: Results, rows: Iterable[SummaryRow], caption: str) -> Markup:
    head = (
        "Victim",
        "Oracle",
        "Queries",
        "Victim's accuracy",
        "Naive clone",
        "Best clone",
        "Best ÷ victim",
        "Against plain QAT, same oracle",
        "Against plain QAT, top-1 only",
        "Best attack",
        "Seeds",
    )
    cells = [
        (
            named(row),
            row.oracle,
            amount(row.budget),
            fraction(row.victim_accuracy),
            fraction(row.naive_clone_accuracy),
            joined((fraction(row.worst_case_clone_accuracy), _range(results, row))),
            fraction(row.worst_case_clone_accuracy / row.victim_accuracy)
            if row.victim_accuracy
            else None,
            _compared(results, row, None),
            _compared(results, row, "top1"),
            row.worst_case_attack,
            amount(row.seeds),
        )
        for row in rows
    ]
    return table(caption, head, cells, ("Oracle", *head[7:10]))


def _by_pool_kind(results: Results, rows: Iterable[SummaryRow]) -> Markup:
    """A thief with the victim's own kind of images hides what happens to all others."""
    kinds = [kind for kind in POOLS if any(row.pool_kind == kind for row in results.attacks)]
    cells = []
    for row in rows:
        shown: list[Markup] = []
        for kind in kinds:
            setting = (results, row.victim, row.oracle, row.budget)
            best = worst_case(cell(*setting, defence_of(row), kind))
            found = compare(*setting, defence=defence_of(row), pool_kind=kind)
            shown.append(fraction(None if best is None else best.mean))
            shown.append(_is_baseline() if row.victim == BASELINE else _difference(found))
        cells.append((named(row), row.oracle, *shown))
    head = ["Victim", "Oracle"]
    for kind in kinds:
        head += [f"Best clone, {POOLS[kind]} queries", f"Against plain QAT, {POOLS[kind]}"]
    return table("The same by kind of queries", head, cells, head[1::2])


def _range(results: Results, row: SummaryRow) -> Markup:
    best = worst_case(cell(results, row.victim, row.oracle, row.budget, defence_of(row)))
    if best is None or len(best.values) < 2:
        return text("")
    spread = f"{percent(best.low)} to {percent(best.high)}"
    return element("span", spread, class_="range")


def _compared(results: Results, row: SummaryRow, oracle: str | None) -> Markup:
    plain = oracle is None or (row.oracle == oracle and defence_of(row) in (None, "none"))
    if row.victim == BASELINE and plain:
        return _is_baseline()
    return _difference(
        compare(results, row.victim, row.oracle, row.budget, oracle, defence_of(row))
    )


def _difference(found: Comparison | None) -> Markup:
    if found is None:
        return text("baseline not attacked")
    shown = number(found.difference, points(found.difference))
    return joined((shown, element("span", found.verdict, class_="range verdict")))


def _is_baseline() -> Markup:
    return text("is the baseline")


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
            " ".join(filter(None, (row.pool, row.pool_kind and f"({row.pool_kind})"))) or None,
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
