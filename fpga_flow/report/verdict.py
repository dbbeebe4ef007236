"""The claim in plain sentences, with its interval: what stands at the top of the page.

One comparison is singled out by a rule that was fixed before any number was seen: all thieves,
against plain QAT, out-of-distribution queries where there were any (in-distribution, then
data-free ones where not), at the largest budget that both victims met. All others are in the
section on claims. The words and the intervals are :mod:`fpga_flow.report.claims`'.
"""

from dataclasses import dataclass

from fpga_flow.report.analysis import BASELINE
from fpga_flow.report.claims import Claim, claims
from fpga_flow.report.schema import Results
from fpga_flow.report.statistics import Difference
from fpga_flow.report.text import counted, percent, points
from fpga_flow.report.words import POOLS, headline

_FIRST = ("out", "in", "free")


@dataclass(frozen=True)
class Sentence:
    """One claim in plain words: the verdict, and the sentence that follows it.

    ``victim`` is whose clones it is about; None where it is about the victim itself.
    """

    verdict: str
    text: str
    victim: str | None = None


def sentences(results: Results) -> list[Sentence]:
    """For every defended victim: what its clones lost, then what it lost itself."""
    found = claims(results)
    told = []
    for victim in dict.fromkeys(claim.victim for claim in found if "+" not in claim.victim):
        mine = [c for c in found if (c.victim, c.against) == (victim, BASELINE)]
        clones = [c for c in mine if c.claim == "clone degrades" and c.answers == "all"]
        clones.sort(key=lambda claim: _FIRST.index(claim.pool_kind or "free"))
        told += [Sentence(claim.verdict, _clone(claim), victim) for claim in clones[:1]]
        own = [c for c in mine if c.claim == "victim accuracy holds"]
        told += [Sentence(claim.verdict, _own(claim)) for claim in own[:1]]
    return told


def heading(results: Results) -> str:
    """The page's heading: the first claim's word on clones; without one, what there is."""
    about = [told for told in sentences(results) if told.victim is not None]
    if len(about) != 1:
        return headline(results)
    (told,) = about
    name = results.dataset.name
    if told.verdict == "supported":
        return f"{told.victim} is harder to steal than plain QAT on {name}"
    if told.verdict == "not supported":
        return f"{told.victim} is no harder to steal than plain QAT on {name}"
    return f"Undecided: is {told.victim} harder to steal than plain QAT on {name}?"


def _clone(claim: Claim) -> str:
    asked = f"{counted(claim.budget or 0, POOLS[claim.pool_kind or 'free'] + ' query')}"
    said = f"{claim.victim} is harder to steal than plain QAT. With {asked}, "
    if claim.clone_accuracy is None or claim.baseline_clone_accuracy is None:
        return f"{said}nothing was measured: {claim.reason}."
    return (
        f"{said}the best clone of {claim.victim} gets {percent(claim.clone_accuracy)} of test "
        f"images right, the best clone of plain QAT {percent(claim.baseline_clone_accuracy)}: "
        f"{_interval(claim.difference)}. Reason: {claim.reason}."
    )


def _own(claim: Claim) -> str:
    return (
        f"{claim.victim} itself stays as accurate as plain QAT. Its own test accuracy "
        f"differs by {_interval(claim.difference)}. Reason: {claim.reason}."
    )


def _interval(found: Difference | None) -> str:
    """``−1.2 points (95 % interval −2.0 to −0.4 points, 3 victim seeds)``."""
    if found is None:
        return "no paired difference"
    seeds = counted(found.victim_seeds, "victim seed")
    if found.t is None:
        return f"{points(found.mean)} (no interval: {seeds})"
    low, high = (points(end).removesuffix(" points") for end in (found.t.low, found.t.high))
    return f"{points(found.mean)} (95 % interval {low} to {high} points, {seeds})"
