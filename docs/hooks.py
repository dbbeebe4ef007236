"""What the site shows of the program is asked of the program: commands' help, docstrings.

A hook of mkdocs and an extension of griffe, which reads the docstrings.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):(?=`)")
_FORMULA = re.compile(r"(?<=\w)\]\((?=\w+\)\))")  # sgn(J_F[label](x)) has no link


class Docstrings(griffe.Extension):
    """Our docstrings as Markdown: "Examples:" is its section; no roles, no links by accident."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object once its docstring is read."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r"::$", ":", text, flags=re.MULTILINE)  # what is indented is code anyhow
            obj.docstring.value = _FORMULA.sub(r"]\\(", _ROLE.sub("", text))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the commands' help, and the benchmark's table, where a page asks for them."""
    markdown = markdown.replace("<!-- commands -->", "\n".join(commands()))
    return markdown.replace("<!-- extraction -->", benchmark())


def commands() -> Iterator[str]:
    """A section a command, with the help that ``divqat COMMAND --help`` prints."""
    from fpga_flow.cli import cli

    yield from _section(cli, click.Context(cli, info_name="divqat", terminal_width=90))


def benchmark() -> str:
    """The table that ``divqat bench extraction --publish`` keeps in the README."""
    readme = Path(__file__).parents[1].joinpath("README.md").read_text("utf-8")
    return readme.partition("<!-- extraction:begin -->")[2].partition("<!-- extraction:end -->")[0]


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _section(one, click.Context(one, context, name, terminal_width=90))
