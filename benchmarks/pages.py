"""What the benchmarks' pages are made of: Markdown tables, and blocks that a command rewrites."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import write_text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; nothing without rows.

    Example:
        >>> table(("a", "b"), [("1", "x|y")])
        ['| a | b |', '|---|---|', '| 1 | x/y |', '']
    """
    lines = [f"| {' | '.join(text.replace('|', '/') for text in row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""] if lines else []


def marks(name: str) -> tuple[str, str]:
    """What stands before and after a block.

    Example:
        >>> marks("results")
        ('<!-- begin results -->', '<!-- end results -->')
    """
    return f"<!-- begin {name} -->", f"<!-- end {name} -->"


def rewrite_block(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks ``name`` of the file ``page``.

    Raises:
        InputError: no such file; the marks are not there, once each and in order.
    """
    if not page.is_file():
        raise InputError(
            f"{page} does not exist: name a page that holds {' and '.join(marks(name))}."
        )
    write_text(page, with_block(page.read_text(encoding="utf-8"), name, text, str(page)))


def block_of(page: str, name: str) -> str:
    """The text between the marks ``name`` of a page.

    Example:
        >>> block_of("a <!-- begin x --> text <!-- end x --> b", "x")
        'text'
    """
    first, last = marks(name)
    return page.partition(first)[2].partition(last)[0].strip()


def with_block(page: str, name: str, text: str, where: str = "the page") -> str:
    """``page`` with ``text`` between the marks ``name``.

    Raises:
        InputError: as :func:`rewrite_block`.

    Example:
        >>> print(with_block("a <!-- begin x --> old <!-- end x --> b", "x", "new"))
        a <!-- begin x -->
        new
        <!-- end x --> b
    """
    first, last = marks(name)
    before, begin, rest = page.partition(first)
    old, end, after = rest.partition(last)
    if not begin or not end or first in old + after or last in before + after:
        raise InputError(f"{where} must hold {first} and after it {last}, once each.")
    return f"{before}{first}\n{text.strip()}\n{last}{after}"
