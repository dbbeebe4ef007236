"""`divqat plugins`: what installed packages add to attacks, defences, engines and data sets."""

import warnings
from importlib.metadata import entry_points

import click

from fpga_flow.cli.options import Commands, Examples, json_option, print_json

_GROUPS = {
    "divqat.attacks": "attacks",
    "divqat.defences": "defences",
    "divqat.engines": "engines",
    "divqat.datasets": "data sets",
}


class PluggedCommands(Commands):
    """The top of the command line: its help ends with the names that other packages add."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names, where there are any, and the examples."""
        groups = _GROUPS if ctx.parent is None else {}
        names = {
            words: sorted({point.name for point in entry_points(group=group)})
            for group, words in groups.items()
        }
        if any(names.values()):
            with formatter.section("From other packages (divqat plugins)"):
                formatter.write_dl([(words, ", ".join(n)) for words, n in names.items() if n])
        super().format_epilog(ctx, formatter)


@click.command(
    cls=Examples,
    epilog="""divqat plugins
              divqat plugins --json""",
)
@json_option
def plugins(as_json: bool) -> int:
    """Show what other packages add, and try to load it.

    Exit code 1 if one cannot be loaded or is refused. A name that is shown as ok works wherever a
    built-in name works: in settings, in --set, in Python. See docs/guides/plugins.md.
    """
    from divqat_brevitas.data import DATASETS
    from divqat_brevitas.extraction import ATTACKS
    from divqat_brevitas.extraction.defences import FAMILIES
    from divqat_brevitas.plugins import PluginWarning
    from fpga_flow.console import columns
    from fpga_flow.engines import ENGINES

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # each is a row below
        found = [*ATTACKS.plugins(), *FAMILIES.plugins(), *ENGINES.plugins(), *DATASETS.plugins()]
    if as_json:
        print_json([vars(row) for row in found])
    elif not found:
        click.echo("No installed package adds anything. How one does: docs/guides/plugins.md")
    else:
        head = ("group", "name", "status", "package", "loaded from")
        rows = [(row.group, row.name, row.status, row.package, row.target) for row in found]
        click.echo(columns([head, *rows]))
    reasons = [row.reason for row in found if row.reason]
    for reason in reasons:
        click.echo(f"warning: {reason}", err=True)
    return 1 if reasons else 0
