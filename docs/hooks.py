"""Parts of the site that come from the program: commands' help, presets, downloads, docstrings.

A hook of mkdocs, and an extension of griffe, which reads the docstrings.
"""

import re
from collections.abc import Iterator
from typing import Any

import click
import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):(?=`)")
_FORMULA = re.compile(r"(?<=\w)\]\((?=\w+\)\))")  # sgn(J_F[label](x)) is not a link


class Docstrings(griffe.Extension):
    """Docstrings as Markdown: "Examples:" as griffe names it; no roles, no accidental links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object once its docstring is read."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r"::$", ":", text, flags=re.MULTILINE)  # indented text is code anyway
            obj.docstring.value = _FORMULA.sub(r"]\\(", _ROLE.sub("", text))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the page's placeholders by commands, presets or downloads."""
    for name, lines in (("commands", commands), ("presets", presets), ("data", downloads)):
        if (place := f"<!-- {name} -->") in markdown:
            markdown = markdown.replace(place, "\n".join(lines()))
    return markdown


def commands() -> Iterator[str]:
    """A section for each command, with the output of ``divqat COMMAND --help``."""
    from fpga_flow.cli import cli

    yield from _section(cli, click.Context(cli, info_name="divqat", terminal_width=90))


def presets() -> Iterator[str]:
    """The presets' names in one line."""
    from fpga_flow.pipeline.resolve import presets

    yield ", ".join(f"`{name}`" for name in presets())


def downloads() -> Iterator[str]:
    """The table of archives that ``divqat data fetch`` downloads."""
    from divqat_brevitas.data.packages import PACKAGES

    yield "| Name | Archive | Licence |\n|---|---|---|"
    for name, package in PACKAGES.items():
        for one in (package, *package.more):
            yield f"| {name} | {one.client}: {one.package} {one.version} | {one.licence} |"


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _section(one, click.Context(one, context, name, terminal_width=90))
