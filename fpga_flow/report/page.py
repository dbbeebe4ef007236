"""The report's page: one self-contained HTML file, a pure function of the results.

No script, nothing loaded from elsewhere, everything escaped. A part that did not run says so, and
why. Numbers carry their exact value in ``<data value>``.
"""

from pathlib import Path

from divqat_brevitas.files import write_text
from fpga_flow.report import words
from fpga_flow.report.attack_section import attacks
from fpga_flow.report.claim_section import WORDS, claims
from fpga_flow.report.frame import Section, framed
from fpga_flow.report.hardware_section import hardware
from fpga_flow.report.ladder import equivalence
from fpga_flow.report.markup import Markup, element
from fpga_flow.report.reproduce_section import reproduce
from fpga_flow.report.schema import Results
from fpga_flow.report.sections import layers, limits, training, victims
from fpga_flow.report.shown import confusions, examples
from fpga_flow.report.verdict import heading, sentences

_SECTIONS = {
    "claims": ("The method's claims, checked", claims),
    "attacks": ("What thieves got", attacks),
    "examples": ("Answers with and without the defence", examples),
    "confusion": ("What is taken for what", confusions),
    "victims": ("Victims", victims),
    "equivalence": ("The same integers on every engine", equivalence),
    "hardware": ("Hardware", hardware),
    "layers": ("Layers and their cost", layers),
    "training": ("Training", training),
    "limits": ("What this does not show", limits),
    "reproduce": ("Run it again", reproduce),
}


def page(results: Results) -> str:
    """The whole HTML document.

    Raises:
        ToolMissingError: matplotlib, which draws the charts, is not installed.
    """
    title = heading(results)
    return framed(
        kind="divqat run",
        name=results.run.name,
        heading=title,
        claims=_claims(results),
        lead=_lead(results, title),
        sections=[
            Section(name, title_, content(results)) for name, (title_, content) in _SECTIONS.items()
        ],
        numbers="report/results.json",
    )


def _lead(results: Results, title: str) -> list[str]:
    """What was measured; how all comparisons came out, unless the heading says that."""
    overall = words.headline(results)
    return [*words.lead(results), *([] if overall == title else [f"In all: {overall}."])]


def _claims(results: Results) -> list[Markup]:
    """The claims in plain sentences, the word first."""
    return [
        element(
            "p",
            element("strong", f"{told.verdict.capitalize()}.", class_=WORDS.get(told.verdict)),
            f" Claim: {told.text}",
            class_="claim",
        )
        for told in sentences(results)
    ]


def write_page(results: Results, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
        ToolMissingError: matplotlib is not installed.
    """
    write_text(path, page(results))
