"""The benchmark's page and the README's block: Markdown, a function of the cells alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from divqat_brevitas.extraction.defences import split_target
from fpga_flow.bench.extraction.collect import order_of
from fpga_flow.bench.extraction.markdown import NONE, cost, difference, percentages, spread, table
from fpga_flow.bench.extraction.specs import CellSpec
from fpga_flow.report.analysis import BASELINE, deployed, is_plain, variants
from fpga_flow.report.claims import (
    EQUAL_COST,
    claims,
    counts,
    equally_costly,
    told,
    unequal_costs,
)
from fpga_flow.report.contest import (
    ALL_ORACLES,
    SOFT_FAMILY,
    Side,
    Thief,
    accuracy_difference,
    best,
    contest,
    naive,
    thieves,
)
from fpga_flow.report.schema import Results
from fpga_flow.report.statistics import difference as paired
from fpga_flow.report.statistics import seed_means
from fpga_flow.report.text import counted
from fpga_flow.report.words import POOLS

_INTRODUCTION = (
    "Made from the cells' JSON alone (`cells/`, `victims/`). Accuracies are of test data, in per "
    "cent, as mean ± standard deviation over victim seeds. *Naive*: KnockoffNets, random queries, "
    "answers used as they come. *Worst case*: the best mean over everything tried at that budget; "
    "it is chosen on the numbers shown, so it is biased upwards, against the defence. *Soft "
    "family*: logits, soft, topk and rounded answers; *all*: labels only too. Differences are "
    "clone accuracy minus that of plain QAT's worst case, in points, paired by victim seed and "
    "attack seed, with a 95 % t-interval over victim seeds (none with one seed; three seeds give "
    "a wide one). Bold: the interval excludes zero; no correction for the number of comparisons. "
    "*Labels only*: against plain QAT behind a top-1 interface. † Plain QAT met attacks that this "
    "victim did not: they are left out of the difference."
)
_COMPOSITION = (
    "The same defence of the answers on each victim; behind a gate it is on top of the gate. "
    "*defence@0.2*: as strong as moves the answers to the owner's validation images by a mean ℓ1 "
    "distance of 0.2, victim by victim; *no more*: at its strongest it moves them by that. The "
    "thief's distance is on images of its pool. ‡ The defences cost unequally, by more than a "
    "tenth."
)


def page(found: dict[str, Results], planned: Sequence[CellSpec] | None = None) -> str:
    """The whole page.

    Args:
        found: from :func:`fpga_flow.bench.extraction.collect.documents`.
        planned: what was to be run, for the list of what was not.
    """
    lines = ["# Extraction benchmark", "", _INTRODUCTION, ""]
    for name, results in found.items():
        lines += [f"## {title(results)}", "", *main_table(results), *_claims(results)]
        lines += [f"![Victim and clone accuracy](frontier-{name}.svg)", ""]
        lines += [f"![Clone accuracy against budget](budget-{name}.svg)", ""]
        for heading, part in (
            ("What each variant costs and gains", ablation_table),
            ("Every thief", every_thief),
            ("With an existing defence", composition_table),
            ("Utility beyond accuracy", utility_table),
        ):
            shown = part(results)
            lines += [f"### {heading}", "", *(shown or ["Not run.", ""])]
    return "\n".join([*lines, *_not_run(found, planned)]).rstrip() + "\n"


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
    for kind, budget in _budgets(results).items():
        for victim in _victims(results):
            soft, every = (
                Side(victim, which, kind, budget) for which in (SOFT_FAMILY, ALL_ORACLES)
            )
            candidates = thieves(every.rows(results))
            if not candidates:
                continue
            best_soft, best_all = best(thieves(soft.rows(results))), best(candidates)
            rows.append(
                (
                    f"{POOLS[kind]}, {budget:,}",
                    victim,
                    accuracy(results, victim),
                    _paid(results, victim),
                    _value(naive(thieves(soft.rows(results)))),
                    _value(best_soft),
                    _name(best_soft),
                    _against(results, soft, replace(soft, victim=BASELINE)),
                    _value(best_all),
                    "the same" if best_all == best_soft else _name(best_all),
                    _against(results, every, replace(every, victim=BASELINE)),
                    _against(results, every, Side(BASELINE, ("top1",), kind, budget)),
                )
            )
    return table(head, rows)


def ablation_table(results: Results) -> list[str]:
    """One line a variant: its accuracy, its distance from float, and the clones by kind."""
    budgets = _budgets(results)
    head = ["Variant", "Seeds", "Accuracy", "Costs", "ℓ1 to float", "Flips, %"]
    head += (f"Worst case, {POOLS[kind]}" for kind in budgets)
    rows = []
    for victim in _victims(results):
        own = [row for row in results.victims if row.variant == victim]
        rows.append(
            (
                victim,
                str(len(own)),
                accuracy(results, victim),
                _paid(results, victim),
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
                    _value(best(thieves(Side(victim, ALL_ORACLES, kind, budget).rows(results))))
                    for kind, budget in budgets.items()
                ),
            )
        )
    return table(head, rows)


def every_thief(results: Results) -> list[str]:
    """Every attack at the largest budget of its kind of queries, victim beside victim."""
    budgets, names = _budgets(results), _victims(results)
    head = ("Queries", "Thief", *names)
    head += tuple(f"{name} − plain QAT" for name in names if not is_plain(name))
    rows = []
    for kind, budget in budgets.items():
        by_victim = {
            name: {
                thief.key[:5]: thief
                for thief in thieves(Side(name, ALL_ORACLES, kind, budget).rows(results))
            }
            for name in names
        }
        for key in sorted({key for found in by_victim.values() for key in found}):
            those = {name: found.get(key) for name, found in by_victim.items()}
            plain = those.get(BASELINE)
            name = next(thief.name for thief in those.values() if thief)
            compared = (
                difference(paired(thief.values, plain.values)) if thief and plain else NONE
                for victim, thief in those.items()
                if not is_plain(victim)
            )
            shown = (_value(thief) for thief in those.values())
            rows.append((f"{POOLS[kind]}, {budget:,}", name, *shown, *compared))
    return table(head, rows)


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
        for kind, budget in _budgets(results, None, defence).items():
            for victim in _victims(results):
                soft = Side(victim, SOFT_FAMILY, kind, budget, defence)
                every = replace(soft, oracles=ALL_ORACLES)
                worst = best(thieves(every.rows(results)))
                if worst is not None:
                    rows.append(
                        (
                            defence,
                            f"{POOLS[kind]}, {budget:,}",
                            victim,
                            _defence_cost(results, victim, defence),
                            _moved(results, victim, defence, "defence_l1_pool"),
                            _value(best(thieves(soft.rows(results)))),
                            _against_like(results, soft),
                            _value(worst),
                            _name(worst),
                            _against_like(results, every),
                        )
                    )
    return [_COMPOSITION, "", *table(head, rows)] if rows else []


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
    """The README's summary: a line a victim and kind of queries, and the claims' words."""
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
        for kind, budget in _budgets(results).items():
            for victim in _victims(results):
                soft = Side(victim, SOFT_FAMILY, kind, budget)
                every = replace(soft, oracles=ALL_ORACLES)
                candidates = thieves(every.rows(results))
                if candidates:
                    rows.append(
                        (
                            title(results),
                            f"{POOLS[kind]}, {budget:,}",
                            victim,
                            _with_cost(results, victim),
                            _value(naive(thieves(soft.rows(results)))),
                            _value(best(thieves(soft.rows(results)))),
                            _value(best(candidates)),
                            _against(results, every, replace(every, victim=BASELINE)),
                            _against(results, every, Side(BASELINE, ("top1",), kind, budget)),
                        )
                    )
        words += _claims(results, f"{results.dataset.name}: ")
    return "\n".join([*table(head, rows), *words]).rstrip()


def accuracy(results: Results, victim: str) -> str:
    """A variant's own accuracy over its seeds."""
    return percentages([deployed(row) for row in results.victims if row.variant == victim])


def _claims(results: Results, prefix: str = "") -> list[str]:
    found = counts(claims(results))
    said = [f"*{claim}*: {told(count)}" for claim, count in found.items()]
    return [f"{prefix}{'; '.join(said)} (`divqat report --claims`).", ""] if said else []


def _victims(results: Results) -> list[str]:
    return sorted(variants(results), key=order_of)


def _budgets(results: Results, victim: str | None = None, defence: str = "none") -> dict[str, int]:
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


def _value(thief: Thief | None) -> str:
    return NONE if thief is None else percentages(list(seed_means(thief.values).values()))


def _name(thief: Thief | None) -> str:
    return NONE if thief is None else thief.name


def _paid(results: Results, victim: str) -> str:
    return NONE if victim == BASELINE else cost(accuracy_difference(results, victim, BASELINE))


def _with_cost(results: Results, victim: str) -> str:
    """A victim's accuracy, flagged where it costs more than a point against plain QAT."""
    paid = _paid(results, victim)
    return accuracy(results, victim) + (f" ({paid})" if paid.startswith("costs") else "")


def _against(results: Results, ours: Side, theirs: Side) -> str:
    if ours == theirs:
        return NONE
    found = contest(results, ours, theirs)
    if found is None:
        return NONE
    return difference(found.difference, " †" if found.lacking else "")


def _against_like(results: Results, ours: Side) -> str:
    """The difference to plain QAT with the same defence, by cost if it can be, else by name."""
    if is_plain(ours.victim):
        return NONE
    like = dict(equally_costly(results, ours.victim)).get(ours.defence, ours.defence)
    shown = _against(results, ours, replace(ours, victim=BASELINE, defence=like))
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


def _not_run(found: dict[str, Results], planned: Sequence[CellSpec] | None) -> list[str]:
    lines = ["## What was not run", ""]
    if planned is not None:
        there = {
            (row.model_extra or {}).get("name")
            for results in found.values()
            for row in results.attacks
        }
        lacking = [spec for spec in planned if spec.name not in there]
        here = len(planned) - len(lacking)
        lines += [f"{here:,} of {counted(len(planned), 'planned cell')} are here.", ""]
        by = Counter((spec.victim.dataset, spec.theft.attack) for spec in lacking)
        lines += table(
            ("Data set", "Attack", "Cells lacking"),
            [(*key, str(count)) for key, count in sorted(by.items())],
        )
    lines.append(
        "Nothing on a board, nothing at the sizes of the papers (`--scale paper`), and no attack "
        "outside of `divqat_brevitas.extraction.ATTACKS`."
    )
    return [*lines, ""]
