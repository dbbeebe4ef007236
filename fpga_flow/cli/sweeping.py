"""`divqat sweep`: a grid of runs."""

from pathlib import Path

import click

from fpga_flow.cli.options import Examples, json_option, print_json


@click.command(
    cls=Examples,
    epilog="""divqat sweep sweep.toml --out runs/sweep --list
              divqat sweep sweep.toml --out runs/sweep --workers 4
              divqat sweep sweep.toml --out /shared/sweep --cluster tcp://head:8786""",
)
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--workers", type=click.IntRange(1), help="Processes [as many as the cores allow].")
@click.option("--cluster", metavar="ADDRESS", help="Run on the workers of this Dask scheduler.")
@click.option("--list", "listing", is_flag=True, help="Show the tasks, and run none.")
@json_option
def sweep(
    sweep: Path, out: Path, workers: int | None, cluster: str | None, listing: bool, as_json: bool
) -> int:
    """Run the pipeline for every combination of a grid of settings.

    \b
    SWEEP is a TOML file:
      preset = "smoke"                  # or: config = "base.toml"
      skip = ["compile", "simulate"]    # stages to leave out
      [base]                            # settings of all tasks
      train.float_epochs = 3
      [grid]                            # every combination is a task
      model.bits = ["w2a2", "w4a4"]
      run.seeds = [0, 1, 2]
      [[task]]                          # one task more
      model.bits = "w8a8"

    Every task is a run directory in OUT/tasks. The same command continues a sweep and skips
    finished tasks. OUT/summary.csv and summary.json contain the key figures. If only the attack
    varies, lists in [attack] are cheaper, because they share one victim.

    With --cluster, OUT must be on a file system that all workers share. Ctrl-C drops waiting
    tasks; running ones go on. Dask runs what its clients send: connect only to a cluster that you
    trust. Tasks without run.threads share the cores; set it for numbers that are equal to the
    last bit. Exit code 1 if a task failed or is left, 3 if a tool is missing.
    """  # noqa: D301 (\b is a backspace: click keeps the lines)
    from dataclasses import asdict

    from fpga_flow.api.sweeping import sweep as run_sweep
    from fpga_flow.pipeline.sweep.figures import table_text

    done = run_sweep(
        sweep,
        out=out,
        workers=workers,
        cluster=cluster,
        listing=listing,
        log=lambda line: click.echo(line, err=True),
    )
    summary, table = done.summary, done.rows
    code = 1 if summary.failed or summary.left else 3 if summary.missing else 0
    if listing:
        if as_json:
            print_json(table)
        else:
            for row in table:
                click.echo(f"{row['state']:11}  {row['task']}")
    elif as_json:
        print_json({"out": str(out), **asdict(summary), "tasks": table, "exit_code": code})
    else:
        click.echo(table_text(table))
        click.echo(
            f"{len(summary.done)} tasks run, {summary.there} were there, {len(summary.left)} left, "
            f"{len(summary.failed)} failed ({out / 'summary.csv'})"
        )
    for name, why in (summary.failed | summary.missing).items():
        click.echo(f"{name}: {why}", err=True)
    return code
