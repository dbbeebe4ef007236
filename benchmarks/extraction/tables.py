"""The tables of the extraction benchmark: Markdown, a function of the committed experiments.

No table has more than eight columns. Accuracies are in per cent, differences in points.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

import pandas as pd

from benchmarks.extraction.results import GATED, HASH, order_of
from benchmarks.extraction.scenarios import Scenario
from benchmarks.extraction.specs import ExperimentSpec
from benchmarks.pages import table
from divqat_brevitas.extraction.defences import split_target
from divqat_brevitas.extraction.evaluation.statistics import MIN_VICTIMS, Difference
from divqat_brevitas.extraction.evaluation.summary import (
    ALL_ORACLES,
    BASELINE,
    MATCHED,
    SOFT_FAMILY,
    Attacker,
    Group,
    accuracy_difference,
    attackers,
    defence_of,
    deployed,
    naive,
    worst_case,
)
from fpga_flow.report.claims import (
    EQUAL_COST,
    claims,
    count_text,
    counts,
    equally_costly,
    unequal_costs,
)
from fpga_flow.report.runs import POOLS, compared, counted, is_plain, variants
from fpga_flow.report.schema import Results

NONE = "–"
_TITLES = {
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10:0-4": "CIFAR-10, classes 0 to 4",
    "mnist": "MNIST",
}


def title(results: Results) -> str:
    """The data set as people write it."""
    return _TITLES.get(results.dataset.name, results.dataset.name)


def headline_table(found: Mapping[str, Results], scenarios: Sequence[Scenario]) -> list[str]:
    """The README's table: plain QAT, the decoy behind its fallback, and labels only.

    Args:
        found: results by name.
        scenarios: each names the one protected victim of its data set that is shown.
    """
    head = (
        "Data set, w4a4",
        "Query pool, budget",
        "Plain QAT",
        "DivQAT decoy + label-only fallback",
        "Plain QAT, labels only",
        "Cost in accuracy",
    )
    rows = []
    for scenario in scenarios:
        results = next(
            (r for r in found.values() if r.dataset.name == scenario.recipe["dataset"]), None
        )
        if results is None or not scenario.gated:
            continue
        victim = scenario.experiment(scenario.gated[0]).label + GATED
        for kind, budget in largest_budgets(results).items():
            ours, plain = Group(victim, kind, budget), Group(BASELINE, kind, budget)
            labels = replace(plain, oracles=("top1",))
            if worst_of(results, labels) is None or worst_of(results, ours) is None:
                continue
            rows.append(
                (
                    title(results),
                    f"{POOLS[kind]}, {budget:,}",
                    clones(worst_of(results, plain)),
                    f"{clones(worst_of(results, ours))} ({against(results, ours, plain, False)})",
                    clones(worst_of(results, labels)),
                    f"{paid(results, victim)} points",
                )
            )
    return table(head, rows)


def main_table(results: Results, *, repeated: bool = True) -> list[str]:
    """Victims by kind of query pool: worst cases, and the differences to plain QAT.

    Args:
        results: of one data set.
        repeated: leave out victims of fewer than three seeds, unless there are no others.
    """
    head = (
        "Queries",
        "Victim",
        "Accuracy",
        "Naive clone",
        "Worst case, soft family",
        "Worst case, all",
        "− plain QAT, all",
        "− labels only",
    )
    seeds = Counter(victim for victim, _ in {(r.victim, r.victim_seed) for r in results.attacks})
    enough = min(MIN_VICTIMS, max(seeds.values(), default=0)) if repeated else 0
    rows = []
    for group in groups(results):
        soft, every = replace(group, oracles=SOFT_FAMILY), group
        worst = worst_of(results, every)
        if worst is None or seeds[group.victim] < enough:
            continue
        labels = Group(BASELINE, group.pool_kind, group.budget, ("top1",))
        rows.append(
            (
                queries(group),
                group.victim,
                with_cost(results, group.victim),
                clones(naive_of(results, soft)),
                clones(worst_of(results, soft)),
                clones(worst),
                against(results, every, replace(every, victim=BASELINE)),
                against(results, every, labels),
            )
        )
    return table(head, rows)


def best_attackers(results: Results) -> list[str]:
    """The attacker behind each worst case."""
    rows = []
    for group in groups(results):
        soft = worst_of(results, replace(group, oracles=SOFT_FAMILY))
        every = worst_of(results, group)
        if every is not None:
            name = "the same" if every == soft else every.name
            rows.append((queries(group), group.victim, NONE if soft is None else soft.name, name))
    return table(("Queries", "Victim", "Soft family", "All oracles"), rows)


def variant_table(results: Results) -> list[str]:
    """One line a variant: its accuracy, its distance from float, and the clones by kind."""
    budgets = largest_budgets(results)
    head = ["Variant", "Seeds", "Accuracy", "ℓ1 to float", "Flips, %"]
    head += (f"Worst case, {POOLS[kind]}" for kind in budgets)
    rows = []
    for victim in in_order(results):
        own = [row for row in results.victims if row.variant == victim]
        moved = [row.l1_to_reference for row in own if row.l1_to_reference is not None]
        flips = [row.flips_from_reference for row in own if row.flips_from_reference is not None]
        worst = (worst_of(results, Group(victim, *item)) for item in budgets.items())
        rows.append(
            (
                victim,
                str(len(own)),
                with_cost(results, victim),
                spread(moved, 3),
                percentages(flips),
                *map(clones, worst),
            )
        )
    return table(head, rows)


def defence_table(results: Results) -> list[str]:
    """Existing defences of the responses, one by one: plain QAT and the other victims with each."""
    head = (
        "Defence",
        "Queries",
        "Victim",
        "ℓ1 to its owner",
        "ℓ1 to the attacker",
        "Worst case, soft family",
        "Worst case, all",
        "− plain QAT, all",
    )
    rows = []
    for defence in sorted({defence_of(row) for row in results.attacks} - {"none"}):
        for kind, budget in largest_budgets(results, defence).items():
            for victim in in_order(results):
                every = Group(victim, kind, budget, ALL_ORACLES, defence)
                worst = worst_of(results, every)
                if worst is not None:
                    rows.append(
                        (
                            defence,
                            queries(every),
                            victim,
                            _defence_cost(results, victim, defence),
                            _moved(results, victim, defence, "defence_l1_pool"),
                            clones(worst_of(results, replace(every, oracles=SOFT_FAMILY))),
                            clones(worst),
                            _against_like(results, every),
                        )
                    )
    return table(head, rows)


def utility_table(results: Results) -> list[str]:
    """What an honest user notices beyond accuracy."""
    head = ["Variant", "ECE", "NLL", "OOD-AUROC", "PGD: float fooled, %"]
    head += ["device fooled, %", "transferred, %", "evasive, %"]
    rows = []
    for name in in_order(results):
        extras = [row.model_extra or {} for row in results.victims if row.variant == name]
        frame = pd.json_normalize([extra["utility"] for extra in extras if extra.get("utility")])
        if frame.empty:
            continue
        attacked = [f"adversarial.pgd-8/255.{key}" for key in _FOOLED]
        columns = frame.reindex(columns=["ece", "nll", "ood_auroc", *attacked])
        values = [columns[column].dropna().tolist() for column in columns]
        rows.append((name, *(spread(v, 3) for v in values[:3]), *map(percentages, values[3:])))
    return table(head, rows)


_FOOLED = ("reference_fooled", "device_fooled", "transferred", "evasive")


def every_attacker(found: Mapping[str, Results]) -> pd.DataFrame:
    """Every attacker on every victim, at every budget: mean, deviation and number of clones."""
    rows = pd.DataFrame(
        {"dataset": results.dataset.name} | row.model_dump()
        for results in found.values()
        for row in results.attacks
    )
    group = ["dataset", "pool_kind", "budget", "attack", "treatment", "pool", "surrogate"]
    group += ["oracle", "defence", "victim"]
    statistics = rows.groupby(group, dropna=False)["clone_accuracy"].agg(["mean", "std", "count"])
    return statistics.round(4).reset_index()


def claim_lines(results: Results) -> list[str]:
    """How often each claim of the paper's abstract is supported."""
    judged = [f"*{claim}*: {count_text(count)}" for claim, count in counts(claims(results)).items()]
    return [f"Claims: {'; '.join(judged)} (`divqat report --claims`).", ""] if judged else []


def not_run(found: Mapping[str, Results], planned: Sequence[ExperimentSpec]) -> list[str]:
    """Planned experiments that are missing, and those whose victim cannot be attacked again."""
    names = {
        (row.model_extra or {}).get("name") for results in found.values() for row in results.attacks
    }
    missing = [spec for spec in planned if spec.name not in names]
    here = len(planned) - len(missing)
    lines = [f"{here:,} of {counted(len(planned), 'planned experiment')} are here.", ""]
    retired = names - {spec.name for spec in planned}
    if retired:
        lines += [
            f"{counted(len(retired), 'further experiment')} on plain QAT left the plan and stayed: "
            "without them, claims that are undecided here would be judged in favour of a defence.",
            "",
        ]
    by = Counter((spec.victim.dataset, spec.attack.attack) for spec in missing)
    lines += table(
        ("Data set", "Attack", "Missing experiments"),
        [(*key, str(count)) for key, count in sorted(by.items())],
    )
    lost, every = _on_lost_victims(found)
    if lost:
        lines += [
            f"{lost:,} of {counted(every, 'attack')} met an earlier training of the victim of that "
            "name, or one whose weights were not kept: the same settings end elsewhere on another "
            "processor. All others can be run again on the very same network "
            "(`divqat bench extraction --experiment NAME`).",
            "",
        ]
    lines.append(
        "Nothing ran on a board, nothing at the sizes of the papers (`--scale paper`), and no "
        "attack outside of `divqat_brevitas.extraction.ATTACKS`."
    )
    return [*lines, ""]


def largest_budgets(results: Results, defence: str = "none") -> dict[str, int]:
    """The largest budget of each kind of query pool, out-of-distribution first."""
    budgets: dict[str, int] = {}
    for row in results.attacks:
        if defence_of(row) == defence:
            budgets[row.pool_kind] = max(row.budget, budgets.get(row.pool_kind, 0))
    return {kind: budgets[kind] for kind in POOLS if kind in budgets}


def in_order(results: Results) -> list[str]:
    """The variants: float first, then plain QAT."""
    return sorted(variants(results), key=order_of)


def worst_of(results: Results, group: Group) -> Attacker | None:
    """The worst case of a group; None where it was not attacked."""
    return worst_case(attackers(group.of(results.attacks)))


def naive_of(results: Results, group: Group) -> Attacker | None:
    """The naive attack of a group; None where there is none."""
    return naive(attackers(group.of(results.attacks)))


def clones(attacker: Attacker | None) -> str:
    """Accuracy of an attacker's clones over victim seeds."""
    return NONE if attacker is None else percentages(list(attacker.by_victim.values()))


def paid(results: Results, victim: str) -> str:
    """Points of accuracy that a victim loses against plain QAT."""
    if victim == BASELINE:
        return NONE
    difference = accuracy_difference(results.victims, victim, BASELINE)
    return NONE if difference is None else _signed(f"{-100 * difference.mean:.1f}")


def with_cost(results: Results, victim: str) -> str:
    """A victim's accuracy, flagged where it costs more than a point against plain QAT."""
    own = [deployed(row) for row in results.victims if row.variant == victim]
    difference = accuracy_difference(results.victims, victim, BASELINE)
    costly = difference is not None and -difference.mean > MATCHED
    return percentages(own) + (f" (costs {paid(results, victim)})" if costly else "")


def against(results: Results, ours: Group, theirs: Group, interval: bool = True) -> str:
    """The difference between two groups; † where ours met fewer attackers."""
    comparison = None if ours == theirs else compared(results, ours, theirs)
    if comparison is None:
        return NONE
    shown = points_of(comparison.difference, interval)
    return shown + " †" if comparison.missing and shown != NONE else shown


def points_of(difference: Difference | None, interval: bool = True) -> str:
    """``−1.2 [−2.0, −0.4]`` in points; bold where the t-interval excludes zero."""
    if difference is None:
        return NONE
    shown = f"{100 * difference.mean:+.1f}"
    if difference.t is not None:
        if interval:
            shown += f" [{100 * difference.t.low:+.1f}, {100 * difference.t.high:+.1f}]"
        if 0.0 not in difference.t:
            shown = f"**{shown}**"
    return _signed(shown)


def percentages(values: Sequence[float]) -> str:
    """Mean ± standard deviation over victim seeds, in per cent: ``66.1 ± 0.5``."""
    return spread([100 * value for value in values], 1)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; only the mean of one value, a dash of none."""
    if not values:
        return NONE
    middle = f"{fmean(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ± {stdev(values):.{digits}f}"


def groups(results: Results) -> Iterator[Group]:
    """Every victim with every kind of query pool, at the largest budget."""
    for kind, budget in largest_budgets(results).items():
        for victim in in_order(results):
            yield Group(victim, kind, budget)


def queries(group: Group) -> str:
    """Kind of query pool and budget of a group."""
    return f"{POOLS[group.pool_kind]}, {group.budget:,}"


def _signed(text: str) -> str:
    """Minus signs, and none before a zero."""
    return re.sub(r"-(0\.0\b)", r"\1", text).replace("-", "−")


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
    """How far a defence moves responses, mean ± standard deviation over victim seeds."""
    by_seed = {
        row.victim_seed: float(moved)
        for row in results.attacks
        if (row.victim, row.defence) == (victim, defence)
        and (moved := (row.model_extra or {}).get(field)) is not None
    }
    return spread(list(by_seed.values()), 3)


def _defence_cost(results: Results, victim: str, defence: str) -> str:
    """What a defence costs the owner; flagged where that is less than its name promises."""
    moved = _moved(results, victim, defence)
    target = split_target(defence)[1] if "@" in defence else None
    if target is None or moved == NONE:
        return moved
    reached = float(moved.partition(" ")[0])
    return moved if reached >= (1 - EQUAL_COST) * target else f"{moved}, no more"


def _on_lost_victims(found: Mapping[str, Results]) -> tuple[int, int]:
    """How many attacks were on a network other than the kept one, and how many there are."""
    lost = every = 0
    for results in found.values():
        kept = {
            (row.variant, row.seed): (row.model_extra or {}).get(HASH) for row in results.victims
        }
        for attack in results.attacks:
            every += 1
            lost += (attack.model_extra or {}).get(HASH) != kept[attack.victim, attack.victim_seed]
    return lost, every
