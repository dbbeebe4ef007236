"""What every command is made with: examples in its help, options in common, JSON on stdout."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


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
