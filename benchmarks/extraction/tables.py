"""The benchmark's page and the README's block: Markdown, a function of the cells alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.extraction.columns import (
    accuracy,
    against,
    clones,
    in_order,
    largest_budgets,
    made_by,
    naive_of,
    paid,
    with_cost,
    worst_of,
)
from benchmarks.extraction.composition import composition_table
from benchmarks.extraction.markdown import NONE, difference, percentages, spread, table
from benchmarks.extraction.remaining import not_run
from benchmarks.extraction.specs import CellSpec
from divqat_brevitas.extraction.evaluation.statistics import MIN_VICTIMS
from divqat_brevitas.extraction.evaluation.statistics import difference as paired
from divqat_brevitas.extraction.evaluation.summary import (
    ALL_ORACLES,
    BASELINE,
    SOFT_FAMILY,
    Group,
    attackers,
)
from fpga_flow.report.claims import claims, counts, told
from fpga_flow.report.frontier import has_budget_curves
from fpga_flow.report.runs import is_plain, variants
from fpga_flow.report.schema import Results
from fpga_flow.report.text import POOLS

_INTRODUCTION = (
    "Made from the cells' JSON alone (`cells/`, `victims/`). Accuracies are of test data, in per "
    "cent, as mean ± standard deviation over victim seeds. *Naive*: KnockoffNets, random queries, "
    "answers used as they come. *Worst case*: the attacker's best mean over victim seeds, among "
    "attacks run on every victim seed with that kind of query pool and that budget; it is chosen "
    "on the numbers shown, so it is biased upwards, against the defence. *Soft "
    "family*: logits, soft, topk and rounded answers; *all*: labels only too. Differences are "
    "clone accuracy minus that of plain QAT's worst case, in points, paired by victim seed and "
    "attack seed, with a 95 % t-interval over victim seeds (none with one seed; three seeds give "
    "a wide one). Bold: the interval excludes zero; no correction for the number of comparisons. "
    "*Labels only*: against plain QAT behind a top-1 interface. † Plain QAT met attacks that this "
    "victim did not: they are left out of the difference."
)


def page(found: dict[str, Results], planned: Sequence[CellSpec] | None = None) -> str:
    """The whole page.

    Args:
        found: from :func:`benchmarks.extraction.collect.documents`.
        planned: what was to be run, for the list of what was not.
    """
    lines = ["# Extraction benchmark", "", _INTRODUCTION, ""]
    for name, results in found.items():
        lines += [f"## {title(results)}", "", *main_table(results), *_claims(results)]
        lines += [f"![Victim and clone accuracy](frontier-{name}.svg)", ""]
        if has_budget_curves(results):
            lines += [f"![Clone accuracy against budget](budget-{name}.svg)", ""]
        for heading, part in (
            ("What each variant costs and gains", ablation_table),
            ("Every thief", every_thief),
            ("With an existing defence", composition_table),
            ("Utility beyond accuracy", utility_table),
        ):
            shown = part(results)
            lines += [f"### {heading}", "", *(shown or ["Not run.", ""])]
    return "\n".join([*lines, *not_run(found, planned)]).rstrip() + "\n"


def title(results: Results) -> str:
    """Data set, network and bit widths."""
    more = results.dataset.model_extra or {}
    return f"{results.dataset.name} ({more.get('model', '?')}, {more.get('bits', '?')})"


def main_table(results: Results) -> list[str]:
    """Victims by kind of queries: naive, worst cases, and the differences to plain QAT."""
    head = (
        "Queries",
        "Victim",
        "Accuracy",
        "Costs",
        "Naive clone",
        "Worst case, soft family",
        "made by",
        "− plain QAT",
        "Worst case, all",
        "made by",
        "− plain QAT",
        "− labels only",
    )
    rows = []
    for kind, budget in largest_budgets(results).items():
        for victim in in_order(results):
            soft, every = (
                Group(victim, kind, budget, which) for which in (SOFT_FAMILY, ALL_ORACLES)
            )
            worst_soft, worst_all = worst_of(results, soft), worst_of(results, every)
            if worst_all is None:
                continue
            rows.append(
                (
                    f"{POOLS[kind]}, {budget:,}",
                    victim,
                    accuracy(results, victim),
                    paid(results, victim),
                    clones(naive_of(results, soft)),
                    clones(worst_soft),
                    made_by(worst_soft),
                    against(results, soft, replace(soft, victim=BASELINE)),
                    clones(worst_all),
                    "the same" if worst_all == worst_soft else made_by(worst_all),
                    against(results, every, replace(every, victim=BASELINE)),
                    against(results, every, Group(BASELINE, kind, budget, ("top1",))),
                )
            )
    return table(head, rows)


def ablation_table(results: Results) -> list[str]:
    """One line a variant: its accuracy, its distance from float, and the clones by kind."""
    budgets = largest_budgets(results)
    head = ["Variant", "Seeds", "Accuracy", "Costs", "ℓ1 to float", "Flips, %"]
    head += (f"Worst case, {POOLS[kind]}" for kind in budgets)
    rows = []
    for victim in in_order(results):
        own = [row for row in results.victims if row.variant == victim]
        rows.append(
            (
                victim,
                str(len(own)),
                accuracy(results, victim),
                paid(results, victim),
                spread([r.l1_to_reference for r in own if r.l1_to_reference is not None], 3),
                spread(
                    [
                        100 * r.flips_from_reference
                        for r in own
                        if r.flips_from_reference is not None
                    ],
                    1,
                ),
                *(
                    clones(worst_of(results, Group(victim, kind, budget)))
                    for kind, budget in budgets.items()
                ),
            )
        )
    return table(head, rows)


def every_thief(results: Results) -> list[str]:
    """Every attack at the largest budget of its kind of queries, victim beside victim."""
    budgets, names = largest_budgets(results), in_order(results)
    head = ("Queries", "Thief", *names)
    head += tuple(f"{name} − plain QAT" for name in names if not is_plain(name))
    rows = []
    for kind, budget in budgets.items():
        by_victim = {
            name: {
                attacker.method: attacker
                for attacker in attackers(Group(name, kind, budget).of(results.attacks))
            }
            for name in names
        }
        for key in sorted({key for found in by_victim.values() for key in found}):
            those = {name: found.get(key) for name, found in by_victim.items()}
            plain = those.get(BASELINE)
            name = next(attacker.name for attacker in those.values() if attacker)
            compared = (
                difference(paired(own.values, plain.values)) if own and plain else NONE
                for victim, own in those.items()
                if not is_plain(victim)
            )
            shown = (clones(attacker) for attacker in those.values())
            rows.append((f"{POOLS[kind]}, {budget:,}", name, *shown, *compared))
    return table(head, rows)


def utility_table(results: Results) -> list[str]:
    """What an honest user notices."""
    found = {
        name: [
            row.model_extra["utility"]
            for row in results.victims
            if row.variant == name and (row.model_extra or {}).get("utility") and row.model_extra
        ]
        for name in variants(results)
    }
    attacks = sorted({a for rows in found.values() for row in rows for a in row["adversarial"]})
    head = ["Variant", "Accuracy", "ECE", "NLL", "ℓ1 to float", "Flips, %", "OOD-AUROC"]
    for attack in attacks:
        head += [f"{attack}: float fooled, %", "device fooled, %", "transferred, %", "evasive, %"]
    rows = []
    for name, records in found.items():
        if records:
            line = [name, accuracy(results, name)]
            for key, factor, digits in (
                ("ece", 1, 3),
                ("nll", 1, 3),
                ("l1_to_reference", 1, 3),
                ("flips_from_reference", 100, 1),
                ("ood_auroc", 1, 3),
            ):
                values = [record[key] for record in records if record.get(key) is not None]
                line.append(spread([factor * value for value in values], digits))
            for attack in attacks:
                moved = [r["adversarial"][attack] for r in records if attack in r["adversarial"]]
                for key in ("reference_fooled", "device_fooled", "transferred", "evasive"):
                    line.append(percentages([m[key] for m in moved if m[key] is not None]))
            rows.append(line)
    return table(head, rows)


def block(found: dict[str, Results]) -> str:
    """The README's summary: a line a victim and kind of queries, and the claims' words.

    Victims of fewer than three seeds, of which nothing is concluded, are on the page alone, unless
    the data set has no others.
    """
    head = (
        "Data set",
        "Queries",
        "Victim",
        "Accuracy",
        "Naive clone",
        "Worst case, soft family",
        "Worst case, all",
        "− plain QAT, all",
        "− labels only",
    )
    rows, words = [], []
    for results in found.values():
        seeds = _attacked_seeds(results)
        enough = min(MIN_VICTIMS, max(seeds.values(), default=0))
        for kind, budget in largest_budgets(results).items():
            for victim in in_order(results):
                if seeds[victim] < enough:
                    continue
                soft = Group(victim, kind, budget, SOFT_FAMILY)
                every = replace(soft, oracles=ALL_ORACLES)
                worst = worst_of(results, every)
                if worst is not None:
                    rows.append(
                        (
                            title(results),
                            f"{POOLS[kind]}, {budget:,}",
                            victim,
                            with_cost(results, victim),
                            clones(naive_of(results, soft)),
                            clones(worst_of(results, soft)),
                            clones(worst),
                            against(results, every, replace(every, victim=BASELINE)),
                            against(results, every, Group(BASELINE, kind, budget, ("top1",))),
                        )
                    )
        words += _claims(results, f"{results.dataset.name}: ")
    return "\n".join([*table(head, rows), *words]).rstrip()


def _attacked_seeds(results: Results) -> Counter[str]:
    """How many victim seeds of each victim were attacked."""
    return Counter(victim for victim, _ in {(r.victim, r.victim_seed) for r in results.attacks})


def _claims(results: Results, prefix: str = "") -> list[str]:
    found = counts(claims(results))
    said = [f"*{claim}*: {told(count)}" for claim, count in found.items()]
    return [f"{prefix}{'; '.join(said)} (`divqat report --claims`).", ""] if said else []
