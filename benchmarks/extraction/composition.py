"""The table of existing defences of the answers on each victim."""

from dataclasses import replace

from benchmarks.extraction.columns import (
    against,
    clones,
    in_order,
    largest_budgets,
    made_by,
    worst_of,
)
from benchmarks.extraction.markdown import NONE, spread, table
from divqat_brevitas.extraction.defences import split_target
from divqat_brevitas.extraction.evaluation.summary import ALL_ORACLES, BASELINE, SOFT_FAMILY, Group
from fpga_flow.report.claims import EQUAL_COST, equally_costly, unequal_costs
from fpga_flow.report.runs import is_plain
from fpga_flow.report.schema import Results
from fpga_flow.report.text import POOLS

_INTRODUCTION = (
    "The same defence of the answers on each victim; behind a gate it is on top of the gate. "
    "*defence@0.2*: as strong as moves the answers to the owner's validation images by a mean ℓ1 "
    "distance of 0.2, victim by victim; *no more*: at its strongest it moves them by that. The "
    "thief's distance is on images of its pool. ‡ The defences cost unequally, by more than a "
    "tenth."
)


def composition_table(results: Results) -> list[str]:
    """Defence by defence: plain QAT with it, and beside it the other victims with it."""
    head = (
        "Defence",
        "Queries",
        "Victim",
        "ℓ1 to its owner",
        "ℓ1 to the thief",
        "Worst case, soft family",
        "− plain QAT",
        "Worst case, all",
        "made by",
        "− plain QAT",
    )
    rows = []
    for defence in sorted({row.defence or "none" for row in results.attacks} - {"none"}):
        for kind, budget in largest_budgets(results, None, defence).items():
            for victim in in_order(results):
                soft = Group(victim, kind, budget, SOFT_FAMILY, defence)
                every = replace(soft, oracles=ALL_ORACLES)
                worst = worst_of(results, every)
                if worst is not None:
                    rows.append(
                        (
                            defence,
                            f"{POOLS[kind]}, {budget:,}",
                            victim,
                            _defence_cost(results, victim, defence),
                            _moved(results, victim, defence, "defence_l1_pool"),
                            clones(worst_of(results, soft)),
                            _against_like(results, soft),
                            clones(worst),
                            made_by(worst),
                            _against_like(results, every),
                        )
                    )
    return [_INTRODUCTION, "", *table(head, rows)] if rows else []


def _against_like(results: Results, ours: Group) -> str:
    """The difference to plain QAT with the same defence, by cost if it can be, else by name."""
    if is_plain(ours.victim):
        return NONE
    like = dict(equally_costly(results, ours.victim)).get(ours.defence, ours.defence)
    shown = against(results, ours, replace(ours, victim=BASELINE, defence=like))
    if shown == NONE:
        return NONE
    if unequal_costs(results, ours.victim, ours.defence, like):
        shown += " ‡"
    return shown if like == ours.defence else f"{shown} with {like}"


def _moved(results: Results, victim: str, defence: str, field: str = "defence_l1") -> str:
    """How far a defence moves answers, mean ± standard deviation over victim seeds."""
    by_seed = {
        row.victim_seed: float(moved)
        for row in results.attacks
        if (row.victim, row.defence) == (victim, defence)
        and (moved := (row.model_extra or {}).get(field)) is not None
    }
    return spread(list(by_seed.values()), 3)


def _defence_cost(results: Results, victim: str, defence: str) -> str:
    """What a defence costs the owner; flagged where that is less than its name promises."""
    paid = _moved(results, victim, defence)
    target = split_target(defence)[1] if "@" in defence else None
    if target is None or paid == NONE:
        return paid
    reached = float(paid.partition(" ")[0])
    return paid if reached >= (1 - EQUAL_COST) * target else f"{paid}, no more"
