"""The page's first section: how hard the trained models are to steal."""

from divqat_brevitas.extraction.evaluation.statistics import Interval
from divqat_brevitas.extraction.evaluation.summary import BASELINE, Attacker
from fpga_flow.report.blocks import difference, fraction, note, paragraph, small
from fpga_flow.report.hardness import Hardness, hardness
from fpga_flow.report.markup import Markup, amount, joined, table
from fpga_flow.report.schema import Results
from fpga_flow.report.text import POOLS, percent
from fpga_flow.report.words import not_run

_HEAD = (
    "Victim",
    "Query pool",
    "Queries",
    "Victim's accuracy",
    "Worst-case clone",
    "Queries to 90 %",
    "Plain QAT's",
    "Plain QAT's, labels only",
    "Minus plain QAT's",
    "Worst-case attack",
)


def models(results: Results) -> list[Markup]:
    """Worst cases by variant and kind of query pool, with intervals, plain QAT beside them."""
    rows = hardness(results)
    if not rows:
        return [paragraph(f"Attacks: {not_run(results, 'attack')}.")]
    bases = {row.basis for row in rows}
    known = bases.pop() if len(bases) == 1 else ""
    return [
        table(
            "Worst-case clones, the deployed model first",
            _HEAD,
            [_cells(row, known) for row in rows],
            (_HEAD[1], _HEAD[-1]),
        ),
        note(
            "The worst case is the attacker's best mean over victim seeds, over all oracles and "
            "attacks run on every victim seed, at the largest budget; an attack that was not tried "
            "may do better. It is chosen on the numbers shown, which errs against the defence. "
            "Below a clone: 95 % interval about the trained models at hand"
            f"{f', {known}' if known else ''}. It joins Student's t over "
            "attack seeds, where there are several, and Wilson's score interval over test images "
            "(Zou and Donner's MOVER); from three trained victims on, the difference has a "
            "t-interval over victim seeds. Queries to 90 %: the smallest budget tried whose "
            "worst-case clone reaches 90 % of the victim's accuracy."
        ),
    ]


def _cells(row: Hardness, known: str) -> tuple[object, ...]:
    basis = "" if row.basis == known else row.basis
    baseline = row.group.victim == BASELINE and row.comparison is None
    return (
        row.victim,
        POOLS[row.group.pool_kind],
        amount(row.group.budget),
        joined((fraction(row.victim_accuracy), small(_victims(row)))),
        joined((fraction(row.worst.mean), small(_between(row.interval)), small(basis))),
        amount(row.queries_to_90_percent) if row.queries_to_90_percent else "not reached",
        None if baseline else _clone(row.plain),
        _clone(row.labels_only),
        "is the baseline" if baseline else difference(row.comparison, row.basis),
        row.worst.name,
    )


def _clone(attacker: Attacker | None) -> Markup:
    return fraction(None if attacker is None else attacker.mean)


def _victims(row: Hardness) -> str:
    return f"mean of {row.victim_seeds}" if row.victim_seeds > 1 else ""


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"
