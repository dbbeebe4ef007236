"""`divqat bench speed`: the speed benchmark's command."""

from pathlib import Path

import click

from fpga_flow.cli.options import Examples, json_option, print_json


@click.command(
    "speed",
    cls=Examples,
    epilog="""divqat bench speed --list
              divqat bench speed --suite training --quick --out speed
              divqat bench speed --threads 2
              divqat bench speed --publish""",
)
@click.option("--suite", "suites", metavar="NAME", multiple=True, help="Only this suite [all].")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/speed"),
    show_default=True,
    help="Folder of the records.",
)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--quick", is_flag=True, help="Smallest sizes: shows that it runs; not published.")
@click.option("--list", "listing", is_flag=True, help="Show the suites, and run none.")
@click.option("--publish", "publishing", is_flag=True, help="Make the page; measure nothing.")
@json_option
def bench_speed(
    suites: tuple[str, ...],
    out: Path,
    rounds: int,
    threads: int,
    quick: bool,
    listing: bool,
    publishing: bool,
    as_json: bool,
) -> int:
    """Time contestants in turns, one JSON a suite with all it ran on.

    Exit code 3 where a tool of a suite is missing; the other suites are measured and written.
    """
    from benchmarks.speed.suite import SUITES, Context

    if listing:
        rows = [{"name": name, "about": entry.about} for name, entry in SUITES.items()]
        if as_json:
            print_json(rows)
        else:
            width = max(map(len, SUITES))
            click.echo("\n".join(f"{row['name']:{width}}  {row['about']}" for row in rows))
        return 0
    if publishing:
        from benchmarks.speed.runner import publish

        written = [str(path) for path in publish(out)]
        if as_json:
            print_json(written)
        else:
            click.echo("\n".join(written))
        return 0
    from benchmarks.speed.runner import run_suites
    from benchmarks.speed.suite import load_suite

    context = Context(rounds, threads, quick, lambda line: click.echo(line, err=True))
    records, lacking = run_suites(suites, out, context)
    if as_json:
        print_json({"records": records, "lacking": lacking})
    else:
        for name, record in records.items():
            section = load_suite(name).section(record["result"])
            click.echo("\n".join([f"{section.title} ({out / f'{name}.json'})", *section.lines]))
    for name, why in lacking.items():
        click.echo(f"not run: {name}: {why}", err=True)
    return 3 if lacking else 0
