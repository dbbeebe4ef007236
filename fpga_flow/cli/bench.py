"""`divqat bench`: the commands of the source checkout's `benchmarks/`, which no wheel holds."""

import sys
from importlib import import_module
from pathlib import Path

import click

import fpga_flow
from fpga_flow.cli.options import Commands, Examples

_COMMANDS = {
    "extraction": "Attack every victim in every way, and compare the clones.",
    "speed": "Time a training step, the engines, attacks and start-up.",
    "hardware": "Size, speed and exactness of finished runs' chips.",
}


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
        return [_missing(name, summary) for name, summary in _COMMANDS.items()]
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))  # before any other package of that name
    return list(import_module("benchmarks.commands").COMMANDS)


for _command in _load(Path(str(fpga_flow.__file__)).parents[1]):
    bench.add_command(_command)
