"""Blocks of a page that a benchmark rewrites, between two marks that name it."""

from pathlib import Path

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import write_text


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the block.

    Example:
        >>> marks("speed")
        ('<!-- speed:begin -->', '<!-- speed:end -->')
    """
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


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


def with_block(page: str, name: str, text: str, where: str = "the page") -> str:
    """``page`` with ``text`` between the marks ``name``.

    Raises:
        InputError: as :func:`rewrite_block`.

    Example:
        >>> print(with_block("a <!-- x:begin --> old <!-- x:end --> b", "x", "new"))
        a <!-- x:begin -->
        new
        <!-- x:end --> b
    """
    first, last = marks(name)
    before, begin, rest = page.partition(first)
    old, end, after = rest.partition(last)
    if not begin or not end or first in old + after or last in before + after:
        raise InputError(f"{where} must hold {first} and after it {last}, once each.")
    return f"{before}{first}\n{text}\n{last}{after}"
