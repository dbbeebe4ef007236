"""`divqat bench hardware`: the hardware benchmark's command."""

from pathlib import Path

import click

from fpga_flow.cli.options import Examples, json_option, print_json


@click.command(
    "hardware",
    cls=Examples,
    epilog="""divqat run --preset lenet5-w2a2 && divqat bench hardware runs/lenet5-w2a2
              divqat bench hardware runs/a runs/b --out benchmarks/hardware""",
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--variant", default="qat", show_default=True, help="Which network of the runs.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("benchmarks/hardware"))
@json_option
def bench_hardware(runs: tuple[Path, ...], variant: str, out: Path, as_json: bool) -> None:
    """Size, speed and exactness of finished runs' chips, beside FINN's estimates."""
    from benchmarks.hardware.measure import measure, merge

    records = [measure(run, variant) for run in runs]
    page = merge(records, out)
    if as_json:
        print_json(records)
    else:
        click.echo(page)
