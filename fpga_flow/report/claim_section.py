"""The page on the abstract's claims: a word each, its numbers, and what protection costs."""

from collections.abc import Iterable

from fpga_flow.report.blocks import charts, folded, fraction, note, paragraph
from fpga_flow.report.claims import Claim, bracketed, counts, told
from fpga_flow.report.claims import claims as judged
from fpga_flow.report.contest import MATCHED
from fpga_flow.report.frontier import frontiers, pool_bars
from fpga_flow.report.markup import Markup, amount, element, joined, number, table, text
from fpga_flow.report.schema import Results
from fpga_flow.report.statistics import Difference
from fpga_flow.report.text import points
from fpga_flow.report.words import POOLS, not_run

WORDS = {"supported": "good", "not supported": "bad"}


def claims(results: Results) -> list[Markup]:
    """The words, the claims with intervals, the frontier, and the clones by the thief's images."""
    found = judged(results)
    if not results.attacks:
        return [paragraph(f"Claims: {not_run(results, 'attack')}.")]
    drawn = [*frontiers(results), pool_bars(results)]
    parts = [
        paragraph(
            "The abstract of DivQAT says that clones of the victim are worse, that the victim's "
            "accuracy holds, and that existing defences gain by the combination. Each is judged "
            "by this run's numbers alone: supported, not supported or undecided."
        )
    ]
    if found:
        words = [f"{claim}: {told(count)}" for claim, count in counts(found).items()]
        parts += [
            element("ul", *(element("li", word) for word in words)),
            folded(f"Every claim ({len(found)})", _table(found)),
            note(
                "Differences are victim minus baseline, in points, paired by victim seed and "
                "attack seed; in brackets a 95 % t-interval over victim seeds, behind it a "
                "hierarchical bootstrap, which at few seeds is too narrow. Supported: three "
                "victim seeds or more, the interval below zero, victims within "
                f"{100 * MATCHED:g} point of accuracy. Not supported: a loss of "
                f"{100 * MATCHED:g} point or more is excluded. The thief's best is chosen by its "
                "mean, which errs against the defence; nothing corrects for the number of claims."
            ),
        ]
    else:
        parts.append(paragraph("No claim to judge: no victim besides plain QAT, or not attacked."))
    parts += [
        element("h3", "What protection costs"),
        note(
            "Right is a better victim, down a worse clone. Best clone over all oracles at the "
            "largest budget, without a post-hoc defence; the thief is named. Whiskers: lowest and "
            "highest victim seed. Grey line: clone and victim equal."
        ),
        charts(drawn),
    ]
    return parts


def _table(found: Iterable[Claim]) -> Markup:
    head = (
        "Claim",
        "Word",
        "Victim",
        "Against",
        "Thieves",
        "Difference",
        "Best clone",
        "Baseline's",
        "Seeds",
        "Why",
        "Best thief",
    )
    cells = [
        (
            element("span", claim.claim, class_="nowrap"),
            element("span", claim.verdict, class_=WORDS.get(claim.verdict)),
            claim.victim,
            claim.against,
            _thieves(claim),
            _difference(claim.difference),
            fraction(claim.clone_accuracy),
            fraction(claim.baseline_clone_accuracy),
            amount(claim.difference.victim_seeds if claim.difference else None),
            claim.reason,
            claim.thief,
        )
        for claim in found
    ]
    words = ("Word", "Victim", "Against", "Thieves", "Why", "Best thief")
    return table("Claims with their numbers", head, cells, words)


def _thieves(claim: Claim) -> str | None:
    """What they saw, what they asked, and how much."""
    if claim.budget is None:
        return None
    return f"{claim.answers}; {POOLS.get(claim.pool_kind or '')}, {claim.budget:,}"


def _difference(found: Difference | None) -> Markup:
    if found is None:
        return text(None)
    shown = [number(found.mean, points(found.mean))]
    if found.t is not None and found.bootstrap is not None:
        shown.append(element("span", bracketed(found.t), class_="range"))
        shown.append(element("span", f"boot {bracketed(found.bootstrap)}", class_="range"))
    return joined(shown)
