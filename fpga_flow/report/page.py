"""The report's page: one self-contained HTML file, a pure function of the results.

No script, nothing loaded from elsewhere, everything escaped. A part that did not run says so, and
why. Numbers carry their exact value in ``<data value>``.
"""

from importlib.resources import files
from pathlib import Path
from string import Template

from divqat_brevitas.files import write_text
from fpga_flow.report import words
from fpga_flow.report.attack_section import attacks
from fpga_flow.report.claim_section import WORDS, claims
from fpga_flow.report.hardware_section import hardware
from fpga_flow.report.ladder import equivalence
from fpga_flow.report.markup import Markup, element, joined, text
from fpga_flow.report.reproduce_section import reproduce
from fpga_flow.report.schema import Results
from fpga_flow.report.sections import layers, limits, training, victims
from fpga_flow.report.shown import confusions, examples
from fpga_flow.report.theme import style_sheet
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
    sections = [
        element(
            "section",
            element("h2", title, id=f"{name}-heading"),
            *content(results),
            id=name,
            aria_labelledby=f"{name}-heading",
        )
        for name, (title, content) in _SECTIONS.items()
    ]
    contents = joined(
        element("li", element("a", title, href=f"#{name}"))
        for name, (title, _) in _SECTIONS.items()
    )
    title = heading(results)
    template = (files("fpga_flow.report") / "page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=text(f"{title} – divqat"),
        style=Markup(style_sheet()),
        run=text(results.run.name),
        headline=text(title),
        claim=_claim(results),
        lead=joined((element("p", sentence) for sentence in _lead(results, title)), "\n"),
        contents=contents,
        sections=joined(sections, "\n"),
    )


def _lead(results: Results, title: str) -> list[str]:
    """What was measured; how all comparisons came out, unless the heading says that."""
    overall = words.headline(results)
    return [*words.lead(results), *([] if overall == title else [f"In all: {overall}."])]


def _claim(results: Results) -> Markup:
    """The claims in plain sentences, the word first."""
    return joined(
        (
            element(
                "p",
                element("strong", f"{told.verdict.capitalize()}.", class_=WORDS.get(told.verdict)),
                f" Claim: {told.text}",
                class_="claim",
            )
            for told in sentences(results)
        ),
        "\n",
    )


def write_page(results: Results, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
        ToolMissingError: matplotlib is not installed.
    """
    write_text(path, page(results))
