"""The page on the method's claims: a word each, its numbers, and what protection costs."""

from collections.abc import Iterable

from divqat_brevitas.extraction.evaluation.statistics import Difference
from divqat_brevitas.extraction.evaluation.summary import MATCHED
from fpga_flow.report.blocks import charts, folded, fraction, note, paragraph
from fpga_flow.report.claims import Claim, counts, no_claims, told
from fpga_flow.report.claims import claims as judged
from fpga_flow.report.frontier import frontiers, pool_bars
from fpga_flow.report.markup import Markup, amount, element, joined, number, table
from fpga_flow.report.schema import Results
from fpga_flow.report.text import POOLS, bracketed, points
from fpga_flow.report.words import not_run

WORDS = {"supported": "good", "not supported": "bad"}


def claims(results: Results) -> list[Markup]:
    """The words and the claims with intervals, or the sentence why there is none."""
    if not results.attacks:
        return [paragraph(f"Claims: {not_run(results, 'attack')}.")]
    found = judged(results)
    if not found:
        return [paragraph(no_claims(results))]
    words = [f"{claim}: {told(count)}" for claim, count in counts(found).items()]
    return [
        paragraph(
            "The abstract of DivQAT says that clones of the victim are worse, that the victim's "
            "accuracy holds, and that existing defences gain by the combination. Each is judged "
            "by this run's numbers alone: supported, not supported or undecided."
        ),
        element("ul", *(element("li", word) for word in words)),
        folded(f"Every claim ({len(found)})", _table(found)),
        note(
            "Differences are victim minus baseline, in points, paired by victim seed and "
            "attack seed; in brackets a 95 % t-interval over victim seeds, behind it a "
            "hierarchical bootstrap, which at few seeds is too narrow. Supported: three "
            "victim seeds or more, the interval below zero, victims within "
            f"{100 * MATCHED:g} point of accuracy. Not supported: a loss of "
            f"{100 * MATCHED:g} point or more is excluded. The worst case is chosen by its "
            "mean, which errs against the defence; nothing corrects for the number of claims."
        ),
    ]


def costs(results: Results) -> list[Markup]:
    """The frontier, and the clones by the attacker's images."""
    if not results.attacks:
        return [paragraph(f"Costs: {not_run(results, 'attack')}.")]
    return [
        note(
            "Right is a better victim, down a worse clone. Worst case over all oracles at the "
            "largest budget, without a post-hoc defence; the attack is named. Whiskers: lowest "
            "and highest victim seed. Grey line: clone and victim equal."
        ),
        charts([*frontiers(results), pool_bars(results)]),
    ]


def _table(found: Iterable[Claim]) -> Markup:
    head = (
        "Claim",
        "Word",
        "Victim",
        "Against",
        "Attackers",
        "Difference",
        "Worst-case clone",
        "Baseline's",
        "Seeds",
        "Why",
        "Worst-case attack",
    )
    cells = [
        (
            element("span", claim.claim, class_="nowrap"),
            element("span", claim.verdict, class_=WORDS.get(claim.verdict)),
            claim.victim,
            claim.against,
            _attackers(claim),
            _difference(claim.difference),
            fraction(claim.clone_accuracy),
            fraction(claim.baseline_clone_accuracy),
            amount(claim.difference.victim_seeds),
            claim.reason,
            claim.thief,
        )
        for claim in found
    ]
    words = ("Word", "Victim", "Against", "Attackers", "Why", "Worst-case attack")
    return table("Claims with their numbers", head, cells, words)


def _attackers(claim: Claim) -> str | None:
    """What they saw, what they asked, and how much."""
    if claim.budget is None:
        return None
    return f"{claim.answers}; {POOLS.get(claim.pool_kind or '')}, {claim.budget:,}"


def _difference(found: Difference) -> Markup:
    shown = [number(found.mean, points(found.mean))]
    if found.t is not None and found.bootstrap is not None:
        shown.append(element("span", bracketed(found.t), class_="range"))
        shown.append(element("span", f"boot {bracketed(found.bootstrap)}", class_="range"))
    return joined(shown)
