"""What the pages under docs/ show, as programs: every block, in order, in one process a page."""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))

from test_guides import without_numbers  # noqa: E402
from test_readme import run  # noqa: E402

DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>not run: [^>]+|slow) -->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```",
    flags=re.DOTALL | re.MULTILINE,
)
# `divqat` as a user types it; each in a process of its own would import torch anew.
_PROGRAM = """\
from fpga_flow.cli import main


def divqat(*arguments):
    try:
        main(arguments)
    except SystemExit as e:
        assert not e.code, (arguments, e.code)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block; ``mark`` is "", "slow", or "not run: " with the reason."""

    kind: str
    mark: str
    code: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [Block(m["kind"], m["mark"] or "", m["code"]) for m in _FENCE.finditer(text)]
    assert len(found) == len(re.findall(r"^```", text, flags=re.MULTILINE)) / 2
    return found


def commands(code: str) -> list[list[str]]:
    """The ``divqat`` command lines of a block of shell, as lists of words after ``divqat``."""
    lines = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["divqat"]]


def run_page(page: Path, folder: Path, *, slow: bool) -> None:
    """Run a page's Python and shell, and compare what it prints with what the page shows.

    Numbers are not compared: the last digits of a training differ between processors.
    """
    program, shown, ran = [_PROGRAM], [], True
    for block in blocks(page):
        if block.kind == "toml":
            (folder / f"{page.stem}.toml").write_text(block.code, encoding="utf-8")
        elif block.kind == "text":
            shown += [block.code] if ran else []
        elif block.kind in ("python", "sh"):
            ran = not block.mark or (slow and block.mark == "slow")
            if ran and block.kind == "python":
                program.append(block.code)
            elif ran:
                lines = commands(block.code)
                assert len(lines) == len(block.code.replace("\\\n", " ").splitlines()), block.code
                program += [f"divqat(*{line!r})" for line in lines]
    assert len(program) > 1
    (folder / "page.py").write_text("\n".join(program), encoding="utf-8")
    printed = without_numbers(run(["page.py"], folder))
    for text in shown:
        assert without_numbers(text) in printed
