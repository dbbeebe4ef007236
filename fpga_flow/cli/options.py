"""What every command is made with: examples in its help, options in common, JSON on stdout."""

import json
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
_PLUGINS = {
    "divqat.attacks": "attacks",
    "divqat.defences": "defences",
    "divqat.engines": "engines",
    "divqat.datasets": "data sets",
}


class Examples(click.Command):
    """A command whose epilog is example command lines, printed as they are."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        with formatter.section("Examples"):
            for line in (self.epilog or "").splitlines():
                formatter.write(f"  {line.strip()}\n")


class Commands(Examples, click.Group):
    """A group of such commands; Ctrl-C anywhere in one becomes an error of ours."""

    command_class = Examples
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order declared, which is the pipeline's."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as e:
            from fpga_flow.errors import InterruptedRunError

            raise InterruptedRunError from e


class PluggedCommands(Commands):
    """The top of the command line: its help ends with the names that other packages add."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names, where there are any, and the examples."""
        groups = _PLUGINS if ctx.parent is None else {}
        names = {
            words: sorted({point.name for point in entry_points(group=group)})
            for group, words in groups.items()
        }
        if any(names.values()):
            with formatter.section("From other packages (divqat plugins)"):
                formatter.write_dl([(words, ", ".join(n)) for words, n in names.items() if n])
        super().format_epilog(ctx, formatter)


def json_option(command: F) -> F:
    """``--json``: one JSON document on stdout."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
    )(command)


def set_option(command: F) -> F:
    """``--set section.key=value``."""
    return click.option(
        "--set",
        "overrides",
        metavar="SECTION.KEY=VALUE",
        multiple=True,
        help="Change one setting; may be given several times.",
    )(command)


def print_json(document: Any) -> None:
    """The one document of ``--json`` on stdout."""
    click.echo(json.dumps(document, indent=2, allow_nan=False, default=str))


def emit(as_json: bool, document: Callable[[], Any], text: Callable[[], object]) -> None:
    """Print a command's result: as the one JSON document, or as text for people."""
    if as_json:
        print_json(document())
    else:
        click.echo(text())
