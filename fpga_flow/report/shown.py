"""What victims and clones say: confusion tables, and answers to single images."""

from collections.abc import Sequence

from fpga_flow.report.blocks import note, paragraph
from fpga_flow.report.evidence import LARGEST
from fpga_flow.report.markup import Markup, element, joined, number, table, text
from fpga_flow.report.runs import defended, in_order
from fpga_flow.report.schema import Confusion, Example, Results
from fpga_flow.report.text import percent

_NAMED = 3  # answers by name; the rest of a distribution is one sum


def confusions(results: Results) -> list[Markup]:
    """Victim beside its worst-case clones, a row a true class."""
    if not results.confusions:
        return [
            paragraph(
                "Confusion: not recorded. Runs of an earlier version did not, and for more than "
                f"{LARGEST} classes no table is made; `divqat report DIR` adds the victims'."
            )
        ]
    known = in_order(results, dict.fromkeys(row.victim for row in results.confusions))
    parts = [
        note(
            "Rows: true class; columns: the class answered; numbers: test images. The shade is "
            "the share of the row. Of clones, the worst case at the largest budget, by kind of "
            "query pool."
        )
    ]
    classes = results.dataset.classes
    names = [str(at) for at in range(classes)] if isinstance(classes, int) else list(classes)
    for victim in known:
        rows = [row for row in results.confusions if row.victim == victim]
        content = element("div", *(_matrix(row, names) for row in rows), class_="charts")
        attributes = {"open": ""} if victim in (defended(results) or known)[-1:] else {}
        title = element("summary", f"{victim} and its clones ({len(rows)})")
        parts.append(element("details", title, content, **attributes))
    return parts


def examples(results: Results) -> list[Markup]:
    """Images with the answers of the undefended victim and the defended one beside them."""
    if not results.examples:
        return [paragraph("Examples: not recorded. `divqat report DIR` asks the victims again.")]
    who = list(dict.fromkeys(a.who for row in results.examples for a in row.answers))
    rows = [
        (_picture(row), row.label, *(_answer(results, row, name) for name in who))
        for row in results.examples
    ]
    return [
        note(
            "The first test images, the one on which plain QAT and DivQAT differ most, and the "
            "first images of the thief's pool where it is of another kind: by rule, not by choice. "
            f"The {_NAMED} most probable classes are named."
        ),
        table(
            "Images and the answers to them",
            ("Image", "True class", *who),
            rows,
            ("True class", *who),
        ),
    ]


def _matrix(row: Confusion, names: Sequence[str]) -> Markup:
    label = f"{'Clone of ' if row.kind == 'clone' else ''}{row.victim}, seed {row.seed}: {row.what}"
    head = ("True", *(_named(names, at) for at in range(len(row.counts))))
    right = sum(line[at] for at, line in enumerate(row.counts) if at < len(line))
    total = sum(map(sum, row.counts)) or 1
    body = [
        (
            _named(names, at),
            *(
                element(
                    "span",
                    number(count),
                    class_="share",
                    style=f"--share: {count / (sum(line) or 1):.3f}",
                )
                for count in line
            ),
        )
        for at, line in enumerate(row.counts)
    ]
    shown = table(f"{label} ({percent(right / total)} right)", head, body)
    return element("div", shown, class_="matrix")


def _picture(row: Example) -> Markup:
    if row.png is None:
        return joined((row.source, " (image not drawn: pillow is not installed)"))
    about = f"{row.source}{f': {row.label}' if row.label else ''}"
    source = f"data:image/png;base64,{row.png}"
    picture = element("img", src=source, alt=about, width=64, class_="pixels")
    # An empty element has no end tag in HTML.
    return joined((Markup(picture.removesuffix("</img>")), element("span", row.source)))


def _answer(results: Results, row: Example, who: str) -> Markup:
    found = next((answer for answer in row.answers if answer.who == who), None)
    if found is None:
        return text(None)
    classes = results.dataset.classes
    names = [str(at) for at in range(classes)] if isinstance(classes, int) else list(classes)
    ordered = sorted(range(len(found.probabilities)), key=lambda at: -found.probabilities[at])
    lines = [
        element(
            "li",
            element("span", _named(names, at), class_="answer"),
            " ",
            number(found.probabilities[at], percent(found.probabilities[at])),
            style=f"--share: {found.probabilities[at]:.3f}",
            class_="bar",
        )
        for at in ordered[:_NAMED]
        if found.probabilities[at] > 0
    ]
    rest = sum(found.probabilities[at] for at in ordered[_NAMED:])
    return element("ol", *lines, element("li", f"others {percent(rest)}"), class_="answers")


def _named(names: Sequence[str], at: int) -> str:
    return names[at] if at < len(names) else str(at)
