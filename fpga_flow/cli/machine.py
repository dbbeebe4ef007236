"""Commands about this installation: `divqat doctor`, `data`, `plugins` and `bench`."""

import sys
import warnings
from importlib import import_module
from pathlib import Path

import click

import fpga_flow
from fpga_flow.cli.options import PATH, Commands, Examples, emit, json_option

_BENCHMARKS = {
    "extraction": "Attack every victim in every way, and compare the clones.",
    "speed": "Time a training step, the engines, attacks and start-up.",
    "hardware": "Size, speed and exactness of finished runs' chips.",
}


@click.command(cls=Examples, epilog="divqat doctor --json")
@json_option
def doctor(as_json: bool) -> None:
    """Show what this machine can do, and which tools are missing."""
    from fpga_flow.doctor import examine, table

    findings = examine()
    emit(as_json, lambda: [vars(finding) for finding in findings], lambda: table(findings))


@click.group(
    cls=Commands,
    epilog="""divqat data list
              divqat data fetch mnist""",
)
def data() -> None:
    """List and fetch data sets."""


@data.command("list", epilog="divqat data list --json")
@json_option
def data_list(as_json: bool) -> None:
    """Show the data sets, and which of them are on this machine."""
    from fpga_flow.doctor import datasets, table

    findings = datasets()
    emit(as_json, lambda: [vars(finding) for finding in findings], lambda: table(findings))


@data.command("fetch", epilog="divqat data fetch fashion-mnist")
@click.argument("name")
@click.option("--root", type=PATH, help="Folder to keep it in [the cache].")
@json_option
def data_fetch(name: str, root: Path | None, as_json: bool) -> None:
    """Download a data set, and check its hash."""
    from divqat_brevitas.data import fetch

    folder = fetch(name, root, progress=lambda line: click.echo(line, err=True))
    emit(as_json, lambda: {"name": name, "path": str(folder)}, lambda: f"{name} is in {folder}")


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
        registries = (ATTACKS, FAMILIES, ENGINES, DATASETS)
        plugged = [row for registry in registries for row in registry.plugins()]
    head = ("group", "name", "status", "package", "loaded from")
    rows = [(row.group, row.name, row.status, row.package, row.target) for row in plugged]
    none = "No installed package adds anything. How one does: docs/guides/plugins.md"
    text = columns([head, *rows]) if rows else none
    emit(as_json, lambda: [vars(row) for row in plugged], lambda: text)
    reasons = [row.reason for row in plugged if row.reason]
    for reason in reasons:
        click.echo(f"warning: {reason}", err=True)
    return 1 if reasons else 0


@click.group(cls=Commands, epilog="divqat bench hardware runs/lenet5-w2a2")
def bench() -> None:
    """Benchmarks: measured here, written as JSON and as a table. They need a source checkout."""


def _missing(name: str, summary: str) -> click.Command:
    """A command that reports what is missing."""

    @click.command(
        name,
        cls=Examples,
        epilog=f"divqat bench {name}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        help=f"{summary}\n\nNot available: this installation has no benchmarks.",
    )
    def command() -> None:
        from divqat_brevitas.errors import ToolMissingError

        raise ToolMissingError(
            f"`divqat bench {name}` needs the benchmarks' code and data, which are not part of the "
            "installed package: get divqat's source repository and install it with "
            "`pip install -e .`, or run `make env` in it."
        )

    return command


def _load(checkout: Path) -> list[click.Command]:
    """The benchmarks' commands of ``checkout``; stand-ins where it is none."""
    if not all(
        (checkout / name).is_file() for name in ("pyproject.toml", "benchmarks/commands.py")
    ):
        return [_missing(name, summary) for name, summary in _BENCHMARKS.items()]
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))  # before any other package of that name
    return list(import_module("benchmarks.commands").COMMANDS)


for _command in _load(Path(str(fpga_flow.__file__)).parents[1]):
    bench.add_command(_command)
