"""The report's page: one self-contained HTML file, a pure function of the results.

No script, nothing loaded from elsewhere, everything escaped. A part that did not run says so, and
why. Numbers carry their exact value in ``<data value>``.
"""

from pathlib import Path

from divqat_brevitas.files import write_text
from fpga_flow.report import words
from fpga_flow.report.attack_section import attacks
from fpga_flow.report.claim_section import claims, costs
from fpga_flow.report.frame import Section, framed
from fpga_flow.report.hardness import hardness, heading, sentence
from fpga_flow.report.hardness_section import models
from fpga_flow.report.hardware_section import hardware
from fpga_flow.report.ladder import equivalence
from fpga_flow.report.markup import Markup, element
from fpga_flow.report.reproduce_section import reproduce
from fpga_flow.report.schema import Results
from fpga_flow.report.sections import layers, limits, training, victims
from fpga_flow.report.shown import confusions, examples

_SECTIONS = {
    "models": ("How hard is this model to steal?", models),
    "claims": ("Claims about the method", claims),
    "costs": ("What protection costs", costs),
    "attacks": ("What attackers got", attacks),
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
    return framed(
        kind="divqat run",
        name=results.run.name,
        heading=heading(results),
        answer=_answer(results),
        lead=words.lead(results),
        sections=[
            Section(name, title_, content(results)) for name, (title_, content) in _SECTIONS.items()
        ],
        numbers="report/results.json",
    )


def _answer(results: Results) -> list[Markup]:
    """The first model's worst cases, a paragraph a kind of query pool."""
    rows = hardness(results)
    first = [row for row in rows if row.victim == rows[0].victim]
    return [element("p", sentence(row), class_="finding") for row in first]


def write_page(results: Results, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
        ToolMissingError: matplotlib is not installed.
    """
    write_text(path, page(results))
