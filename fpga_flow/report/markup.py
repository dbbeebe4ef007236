"""HTML from values: everything is escaped unless this module made it."""

from collections.abc import Iterable, Sequence
from html import escape

from fpga_flow.report.text import printable

MISSING = "–"


class Markup(str):
    """Text that is HTML already. Only the functions here, and the charts, make it."""

    __slots__ = ()


def text(value: object) -> Markup:
    """``value`` as HTML: escaped, unless it is :class:`Markup`; None as a dash."""
    if isinstance(value, Markup):
        return value
    return Markup(MISSING if value is None else escape(printable(value)))


def number(value: float | None, shown: str | None = None) -> Markup:
    """A number with its exact value for machines: ``<data value="0.9734">97.3 %</data>``."""
    if value is None:
        return text(None)
    return element("data", f"{value:,}" if shown is None else shown, value=repr(value))


def amount(value: float | None) -> Markup:
    """A count or measure with up to four significant digits after rounding to integers above."""
    if value is None:
        return text(None)
    return number(
        value, f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"
    )


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """``<tag ...>content</tag>``, escaped; ``class_`` is class, ``aria_label`` aria-label."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{given}>{joined(content)}</{tag}>")


def joined(parts: Iterable[object], separator: str = "") -> Markup:
    """Parts one after the other, each escaped."""
    return Markup(separator.join(text(part) for part in parts))


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], words: Iterable[str] = ()
) -> Markup:
    """A table whose first column names the row; scrolls sideways by itself where it is too wide.

    Args:
        caption: what the table shows.
        head: column names.
        rows: cells, as many as ``head``.
        words: the columns that hold words; the others hold numbers and are set flush right.
    """
    kinds = [None if name in (head[0], *words) else "number" for name in head]
    columns = joined(
        element("th", name, scope="col", class_=kind)
        for name, kind in zip(head, kinds, strict=True)
    )
    body = joined(
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(
                element("td", cell, class_=kind or _width(cell))
                for cell, kind in zip(row[1:], kinds[1:], strict=True)
            ),
        )
        for row in rows
    )
    content = (
        element("caption", caption),
        element("thead", element("tr", columns)),
        element("tbody", body),
    )
    return element(
        "div",
        element("table", *content),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex=0,
    )


def _width(cell: object) -> str | None:
    """Sentences get room, so that a narrow window does not make them a tower of words."""
    plain = isinstance(cell, str) and not isinstance(cell, Markup)
    return "long" if plain and len(str(cell)) > 24 else None
