"""The frame of every page: head, heading, contents, sections, footer; self-contained HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from fpga_flow.report.markup import Markup, element, joined, text
from fpga_flow.report.theme import style_sheet


@dataclass(frozen=True)
class Section:
    """A section of a page; ``name`` is its anchor, unique in the page."""

    name: str
    title: str
    content: Sequence[Markup]


def framed(
    *,
    kind: str,
    name: str,
    heading: str,
    answer: Sequence[Markup],
    lead: Sequence[str],
    sections: Sequence[Section],
    numbers: str,
) -> str:
    """The whole HTML document.

    Args:
        kind: what the page is about, such as "divqat run".
        name: of that.
        heading: the one sentence that says most.
        answer: paragraphs below it.
        lead: sentences below those.
        sections: in order.
        numbers: where the same numbers are for programs.
    """
    contents = joined(
        element("li", element("a", section.title, href=f"#{section.name}")) for section in sections
    )
    body = (
        element(
            "section",
            element("h2", section.title, id=f"{section.name}-heading"),
            *section.content,
            id=section.name,
            aria_labelledby=f"{section.name}-heading",
        )
        for section in sections
    )
    template = (files("fpga_flow.report") / "page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=text(f"{heading} – divqat"),
        style=Markup(style_sheet()),
        kind=text(kind),
        run=text(name),
        headline=text(heading),
        answer=joined(answer, "\n"),
        lead=joined((element("p", sentence) for sentence in lead), "\n"),
        contents=contents,
        sections=joined(body, "\n"),
        numbers=text(numbers),
    )
