"""Claims about the method, each checked against the measured numbers: three words, no more.

Of DivQAT's abstract (arXiv 2512.23948), three claims can be measured:

* ``clone degrades``: the worst-case clone of the victim is worse than that of plain QAT;
* ``victim accuracy holds``: the victim loses less than one point against plain QAT;
* ``combination improves``: an existing defence on the victim leaves a worse clone than the same
  defence, at an equal cost, on plain QAT.

They are about a training method, so at least three trained victims of each side stand behind every
one; where there are fewer, :mod:`fpga_flow.report.hardness` states what holds of the trained
victims at hand, and nothing is claimed. Worst cases and differences are
:mod:`divqat_brevitas.extraction.evaluation.summary`'s.

Clones are judged over the *soft family* of oracles (logits, soft, topk, rounded), over *all*
oracles, and as all oracles *against a plain QAT that shows labels only*: a defence that does not
beat hiding the probabilities is not needed. Kinds of query pools are kept apart, each at the
largest budget that both victims met. Defences are equally costly where their names say so
("dcp@0.2" on both) or their ℓ1 distances to the undefended responses differ by less than a tenth.

The words rest on the 95 % t-interval over victim seeds:

* **supported**: the interval wholly below zero, the victim within one point of the baseline's
  accuracy, and no attacker that only the baseline met. For accuracy: the interval wholly above
  minus one point.
* **not supported**: the interval excludes a loss of one point or more. For accuracy: it lies
  wholly below minus one point.
* **undecided**: anything else, with the reason.

No correction is made for the number of claims: of twenty that are true of nothing, one may come
out in favour of either side.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.statistics import MIN_VICTIMS, Difference, Interval
from divqat_brevitas.extraction.evaluation.summary import (
    ALL_ORACLES,
    BASELINE,
    MATCHED,
    SOFT_FAMILY,
    Comparison,
    Group,
    accuracy_difference,
    largest_common_budget,
)
from fpga_flow.report.collection import read
from fpga_flow.report.hardness import hardness, line, records
from fpga_flow.report.runs import (
    bracketed,
    compared,
    counted,
    defended,
    image_count,
    is_plain,
    named,
    percent,
    points,
    printable,
    variants,
    with_interval,
)
from fpga_flow.report.schema import Results

Verdict = Literal["supported", "not supported", "undecided"]
VERDICTS: tuple[Verdict, ...] = ("supported", "not supported", "undecided")
KINDS = ("in", "out", "free")
EQUAL_COST = 0.1
"""Defences whose ℓ1 costs differ by at most this share of the larger count as equally costly."""

_ANSWERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "soft family": (SOFT_FAMILY, SOFT_FAMILY),
    "all": (ALL_ORACLES, ALL_ORACLES),
    "all, against labels only": (ALL_ORACLES, ("top1",)),
}


@dataclass(frozen=True)
class Claim:
    """One claim about a way to train victims, judged."""

    claim: str  # "clone degrades", "victim accuracy holds" or "combination improves"
    victim: str  # variant, with its defence: "divqat + reverse-sigmoid:0.5"
    against: str  # the baseline, likewise
    answers: str | None  # what the attackers saw; None for the victim's own accuracy
    pool_kind: str | None  # "in", "out" or "free"; None likewise
    budget: int | None  # queries; None likewise
    verdict: Verdict  # the word
    reason: str  # why that word
    # Clone accuracy (or the victim's own), victim minus baseline, with intervals
    difference: Difference
    cost: float | None = None  # accuracy that the victim lost against the baseline, fraction of 1
    clone_accuracy: float | None = None  # of the worst case
    # Of the baseline's worst case, among attackers that both met
    baseline_clone_accuracy: float | None = None
    attack: str | None = None  # the one that made the worst-case clone
    baseline_attack: str | None = None  # the one that made the baseline's


def claims(results: Results) -> list[Claim]:
    """Every claim that three trained victims or more stand behind, victim by victim."""
    found: list[Claim] = []
    for victim in defended(results):
        for against in baselines(results, victim):
            found += _accuracy(results, victim, against)
            found += _clones(results, victim, against)
        found += _combinations(results, victim)
    return [claim for claim in found if claim.difference.about_method]


def no_claims(results: Results) -> str:
    """Why there is no claim about the method, in one sentence."""
    trained = max((_trained(results, victim) for victim in defended(results)), default=0)
    if not defended(results) or not _trained(results, BASELINE):
        return "A claim about the method compares trained victims with plain QAT; one is missing."
    if trained < MIN_VICTIMS:
        return (
            "A claim about the method needs three trained victims; "
            f"here {'is' if trained == 1 else 'are'} {trained}."
        )
    return "A claim about the method needs attacks on three trained victims and on plain QAT's."


def baselines(results: Results, victim: str) -> list[str]:
    """Plain QAT, and the plain variant of the victim's own accuracy where ``qat`` is not.

    The second is the one nearest in accuracy, within one point.
    """
    found = [BASELINE] if BASELINE in variants(results) else []
    plain = accuracy_difference(results.victims, victim, BASELINE)
    if plain is None or abs(plain.mean) <= MATCHED:
        return found
    near: dict[str, float] = {}
    for name in filter(is_plain, variants(results)):
        gap = accuracy_difference(results.victims, victim, name)
        if gap is not None and abs(gap.mean) <= MATCHED:
            near[name] = abs(gap.mean)
    return [*found, *sorted(near, key=lambda name: near[name])[:1]]


def counts(found: list[Claim]) -> dict[str, Counter[Verdict]]:
    """Claim → how often each word was said of it."""
    counted_: dict[str, Counter[Verdict]] = {}
    for claim in found:
        counted_.setdefault(claim.claim, Counter())[claim.verdict] += 1
    return counted_


def count_text(count: Counter[Verdict]) -> str:
    """``supported 1, undecided 3``."""
    return ", ".join(f"{verdict} {count[verdict]}" for verdict in VERDICTS if count[verdict])


def _trained(results: Results, variant: str) -> int:
    return len({row.seed for row in results.victims if row.variant == variant})


def _accuracy(results: Results, victim: str, against: str) -> Iterator[Claim]:
    found = accuracy_difference(results.victims, victim, against, image_count(results))
    if against != BASELINE or found is None or found.t is None:
        return
    point = f"{100 * MATCHED:g} point"
    verdict: Verdict = "undecided"
    reason = f"the interval holds a loss of {point}"
    if found.t.low > -MATCHED:
        verdict, reason = "supported", f"the interval excludes a loss of {point}"
    elif found.t.high < -MATCHED:
        verdict, reason = "not supported", f"it loses more than {point}"
    about = ("victim accuracy holds", victim, against, None, None, None)
    yield Claim(*about, verdict, reason, found, cost=-found.mean)


def _clones(results: Results, victim: str, against: str) -> Iterator[Claim]:
    for kind in KINDS:
        ours, theirs = Group(victim, kind, 0), Group(against, kind, 0)
        for answers in _ANSWERS:
            yield from _judged("clone degrades", results, ours, theirs, answers)


def _combinations(results: Results, victim: str) -> Iterator[Claim]:
    for mine, like in equally_costly(results, victim):
        unequal = unequal_costs(results, victim, mine, like)
        for kind in KINDS:
            ours = Group(victim, kind, 0, defence=mine)
            theirs = Group(BASELINE, kind, 0, defence=like)
            for answers in ("soft family", "all"):
                yield from _judged("combination improves", results, ours, theirs, answers, unequal)


def equally_costly(results: Results, victim: str) -> Iterator[tuple[str, str]]:
    """Pairs of a defence on ``victim`` and the same defence on plain QAT, at an equal cost.

    A defence that names its cost ("dcp@0.2") has its like in the one of the same name. Of others
    the cost is the attack rows' "defence_l1" (mean ℓ1 distance that the defence moves the
    answers), beyond schema 1; without it, equal names (defence and strength) count as equal.
    Strengths differ where costs are to be equal: the nearest is taken, within a tenth.
    """

    def families(defence: str) -> list[str]:  # dcp:0.7+rounding:2: dcp and rounding
        return [part.partition(":")[0] for part in defence.split("+")]

    mine, theirs = _costs(results, victim), _costs(results, BASELINE)
    for defence, cost in mine.items():
        same = {name: c for name, c in theirs.items() if families(name) == families(defence)}
        known = {name: c for name, c in same.items() if c is not None}
        if "@" in defence or cost is None or not known:
            if defence in theirs:
                yield defence, defence
            continue
        nearest = min(known, key=lambda name: abs(known[name] - cost))
        if _equal(known[nearest], cost):
            yield defence, nearest


def unequal_costs(results: Results, victim: str, mine: str, theirs: str) -> str:
    """Why a defence on ``victim`` and one on plain QAT cost unequally; "" where none knows it.

    One that names its cost may miss it: where it is at its strongest.
    """
    ours, base = _costs(results, victim).get(mine), _costs(results, BASELINE).get(theirs)
    if ours is None or base is None or _equal(ours, base):
        return ""
    return f"the defences cost unequally: an ℓ1 of {ours:.3g}, and of {base:.3g} on the baseline"


def _equal(a: float, b: float) -> bool:
    return abs(a - b) <= EQUAL_COST * max(a, b)


def _costs(results: Results, victim: str) -> dict[str, float | None]:
    costs: dict[str, list[float]] = {}
    for row in results.attacks:
        if row.victim == victim and row.defence not in (None, "none"):
            cost = (row.model_extra or {}).get("defence_l1")
            costs.setdefault(str(row.defence), []).extend([] if cost is None else [float(cost)])
    return {name: sum(c) / len(c) if c else None for name, c in sorted(costs.items())}


def _judged(
    claim: str, results: Results, ours: Group, theirs: Group, answers: str, unequal: str = ""
) -> Iterator[Claim]:
    """One claim at the largest budget that both met, whatever the oracles."""
    budget = largest_common_budget(results.attacks, ours, theirs)
    if budget is None:
        return
    mine, base = _ANSWERS[answers]
    ours = replace(ours, budget=budget, oracles=mine)
    theirs = replace(theirs, budget=budget, oracles=base)
    found = compared(results, ours, theirs)
    if found is None or found.difference is None or found.difference.t is None:
        return
    verdict, reason = _verdict(found, found.difference.t, unequal)
    yield Claim(
        claim,
        named(ours.victim, ours.defence),
        named(theirs.victim, theirs.defence),
        answers,
        ours.pool_kind,
        ours.budget,
        verdict,
        reason,
        found.difference,
        cost=None if found.cost is None else found.cost.mean,
        clone_accuracy=found.ours.mean,
        baseline_clone_accuracy=found.theirs.mean,
        attack=found.ours.name,
        baseline_attack=found.theirs.name,
    )


def _verdict(found: Comparison, interval: Interval, unequal: str) -> tuple[Verdict, str]:
    if unequal:
        return "undecided", unequal
    if interval.high >= 0:
        if interval.low > -MATCHED:
            return "not supported", f"a loss of {100 * MATCHED:g} point or more is excluded"
        return "undecided", "the interval holds zero"
    if found.cost is None or found.cost.mean > MATCHED:
        paid = "an unknown accuracy" if found.cost is None else points(found.cost.mean).strip("+")
        return "undecided", f"the clone is worse, but the victim costs {paid}"
    if found.missing:
        return "undecided", (
            f"{counted(len(found.missing), 'attack')} on the baseline not made on the victim, "
            f"such as {found.missing[0]}"
        )
    if found.better_on_fewer:
        return "undecided", f"on fewer seeds {found.better_on_fewer[0]} did better"
    return "supported", "the interval lies below zero, at an equal accuracy of the victims"


NOTE = (
    "The worst case is the attacker's best mean over victim seeds, chosen on the numbers shown, "
    "which errs against the defence. Of claims, in brackets: 95 % t-interval over victim seeds; "
    "'boot': hierarchical bootstrap, which at few seeds is too narrow. No correction is made for "
    "the number of claims."
)


def results_files(path: Path) -> list[Path]:
    """What a path means: a results file, a run directory, or a benchmark's folder."""
    if path.is_file():
        return [path]
    for found in (path / "report" / "results.json", path / "results.json"):
        if found.is_file():
            return [found]
    found_many = sorted(path.glob("results-*.json"))
    if not found_many:
        raise InputError(
            f"{path} holds no results: name a run directory with a report (`divqat report DIR` "
            "writes one), a results.json, or a folder with results-<dataset>.json "
            "(`divqat bench extraction --publish` writes those of the benchmark)."
        )
    return found_many


def claims_document(path: Path) -> dict[str, Any]:
    """The models' worst cases and all claims of all results at ``path``, as a JSON document."""
    return {
        "note": NOTE,
        "results": [{"file": str(file), **_document(read(file))} for file in results_files(path)],
    }


def claims_text(path: Path) -> str:
    """The models' worst cases and all claims of all results at ``path``, for a terminal."""
    return "\n\n".join([*(_text(read(file)) for file in results_files(path)), NOTE])


def _document(results: Results) -> dict[str, Any]:
    found = claims(results)
    return {
        "dataset": results.dataset.name,
        "models": records(results),
        "claims": [asdict(claim) for claim in found],
        "count": {name: dict(count) for name, count in counts(found).items()},
    }


def _text(results: Results) -> str:
    found, rows = claims(results), hardness(results)
    lines = [results.dataset.name, "  How hard are these models to steal?"]
    lines += [f"    {line(row)}" for row in rows] or ["    Not attacked yet."]
    lines.append("  What holds of the method?")
    lines += [f"    {claim}: {count_text(count)}" for claim, count in counts(found).items()]
    lines += [f"    {part}" for claim in found for part in _lines(claim)]
    lines += [] if found else [f"    {no_claims(results)}"]
    return printable("\n".join(lines))


def _lines(claim: Claim) -> Iterator[str]:
    setting = [f"responses: {claim.answers}" if claim.answers else None, claim.pool_kind]
    setting.append(None if claim.budget is None else counted(claim.budget, "query"))
    where = ", ".join(part for part in setting if part)
    yield f"[{claim.verdict}] {claim.claim}: {claim.victim} against {claim.against}" + (
        f" ({where})" if where else ""
    )
    found = claim.difference
    boot = f", boot {bracketed(found.bootstrap)}" if found.bootstrap else ""
    clones = ""
    if claim.clone_accuracy is not None and claim.baseline_clone_accuracy is not None:
        both = percent(claim.clone_accuracy), percent(claim.baseline_clone_accuracy)
        clones = "; clones {} and {}".format(*both)
    yield (
        f"    {with_interval(found)}{boot}; {counted(found.victim_seeds, 'victim seed')}, "
        f"{counted(found.pairs, 'pair')}{clones}"
    )
    yield f"    {claim.reason}"
    if claim.attack is not None:
        yield f"    worst-case attack: {claim.attack}; on the baseline: {claim.baseline_attack}"
