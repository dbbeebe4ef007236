"""What a user sees: progress on stderr, as a bar where that is a terminal, and tables."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")


class Progress:
    """Progress of long work, on ``stream`` (default: stderr, so that stdout stays for results).

    Example:
        >>> progress = Progress(quiet_seconds=0)
        >>> [n for n in progress.track([1, 2], "squares")]
        [1, 2]
    """

    def __init__(self, stream: TextIO | None = None, quiet_seconds: float = 10.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet_seconds = quiet_seconds
        self._last = time.monotonic()

    def log(self, text: str) -> None:
        """One line; it does not tear a bar that stands on the terminal."""
        tqdm.write(text, file=self._stream)
        self._last = time.monotonic()

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal, elsewhere a line every few seconds.

        Gives a function to be called with how many of ``total`` are done.
        """
        if not self._stream.isatty():
            yield lambda done: self._line(label, done, total)
            return
        with tqdm(desc=label, total=total, file=self._stream, leave=False) as shown:

            def show(done: int) -> None:
                shown.update(done - shown.n)

            yield show

    def track(self, items: Sequence[T], label: str) -> Iterator[T]:
        """The items, one by one, with a bar."""
        with self.bar(label, len(items)) as show:
            for number, item in enumerate(items, start=1):
                yield item
                show(number)

    def _line(self, label: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= self._quiet_seconds:
            self.log(f"{label}: {done} of {total}")


def columns(rows: Iterable[Sequence[object]]) -> str:
    """Rows as aligned lines; None is shown as a dash.

    Example:
        >>> print(columns([("name", 1), ("x", None)]))
        name  1
        x     -
    """
    table = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
