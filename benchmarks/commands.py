"""The commands below `divqat bench`; nothing heavy is imported before one runs."""

import time
from pathlib import Path

import click

from benchmarks import ROOT
from fpga_flow.cli.options import Examples, json_option, print_json

_WORK = Path("runs/extraction")
_COMMITTED = ROOT / "benchmarks" / "extraction"


@click.command(
    "extraction",
    cls=Examples,
    epilog="""divqat bench extraction --scale mini
              divqat bench extraction --jobs 2 --minutes 120
              divqat bench extraction --list --only '*nasty*'
              divqat bench extraction --dataset svhn --jobs 4
              divqat bench extraction --detection
              divqat bench extraction --ownership
              divqat bench extraction --publish --readme README.md
              divqat bench extraction --experiment NAME""",
)
@click.option(
    "--scale",
    type=click.Choice(["mini", "compact", "paper"]),
    default="compact",
    show_default=True,
    help="mini: minutes; compact: the committed matrix; paper: sizes of the papers, not run.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="The compact matrix for another set that you have, such as svhn or imagefolder:PATH.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=_WORK,
    show_default=True,
    help="Folder of victims and checkpoints.",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--minutes", type=click.FloatRange(0), help="Start nothing new after this time.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only experiments whose name fits.")
@click.option("--list", "listing", is_flag=True, help="Show the experiments, and run none.")
@click.option(
    "--detection",
    "detecting",
    is_flag=True,
    help="Measure the tripwire on the victims with a decoy class, and attack none.",
)
@click.option(
    "--ownership",
    "proving",
    is_flag=True,
    help="Measure the ownership test on clones and independent networks, and attack none.",
)
@click.option(
    "--publish",
    "publishing",
    is_flag=True,
    help="Pack finished experiments, make tables and plots.",
)
@click.option(
    "--readme",
    type=click.Path(path_type=Path),
    help="With --publish: a page whose blocks `results` and `hardware` are rewritten.",
)
@click.option("--experiment", metavar="NAME", help="Run one again; compare it with the committed.")
@json_option
def bench_extraction(
    scale: str,
    dataset: str | None,
    out: Path | None,
    work: Path,
    jobs: int,
    minutes: float | None,
    only: tuple[str, ...],
    listing: bool,
    detecting: bool,
    proving: bool,
    publishing: bool,
    readme: Path | None,
    experiment: str | None,
    as_json: bool,
) -> int:
    """Attack every victim in every way, and compare the clones; the same command continues.

    Committed results are in benchmarks/extraction (scale "compact"); other results go to WORK/SCALE
    or, with --dataset, to WORK/NAME. Finished experiments stay in WORK/experiments until --publish
    packs them. The scale "paper" is planned for a GPU and was never run. Exit code 1 where an
    experiment failed, or with --experiment where the new value is outside of the interval of the
    committed ones.
    """
    from dataclasses import asdict

    from benchmarks.extraction.plan import plan, scenario_of
    from benchmarks.extraction.repeat import repeat
    from benchmarks.extraction.runner import Place, run, select
    from benchmarks.extraction.specs import file_name
    from divqat_brevitas.errors import InputError

    if dataset is None:
        planned = plan(scale)
        usual = _COMMITTED if scale == "compact" else work / scale
    else:
        if scale != "compact":
            raise InputError(f"--dataset has only the compact matrix: leave out --scale {scale}.")
        own = scenario_of(dataset)
        for line in own.left_out:
            click.echo(line, err=True)
        planned, usual = own.experiments, work / file_name(dataset)
    out = usual if out is None else out
    deadline = None if minutes is None else time.time() + 60 * minutes
    place = Place(out, work, deadline=deadline)
    experiments = select(planned, only)
    if listing:
        records = place.experiments
        rows = [{"name": e.name, "done": records.get(e) is not None} for e in experiments]
        if as_json:
            print_json(rows)
        else:
            for row in rows:
                click.echo(f"{'done' if row['done'] else '    '}  {row['name']}")
        return 0
    if detecting or proving:
        from benchmarks.extraction.detection import measure_detection
        from benchmarks.extraction.ownership import measure_ownership
        from benchmarks.extraction.scenarios import COMPACT
        from benchmarks.extraction.victims import VictimStore

        if scale != "compact" or dataset is not None:
            raise InputError(
                "--detection and --ownership are of the compact scale's victims: leave out the "
                "others."
            )
        store = VictimStore(work, kept=_COMMITTED)
        measures = [measure_detection] * detecting + [measure_ownership] * proving
        files = [
            measure(COMPACT, store, out, log=lambda line: click.echo(line, err=True))
            for measure in measures
        ]
        print_json([str(file) for file in files]) if as_json else click.echo(
            "\n".join(map(str, files))
        )
        return 0
    if publishing:
        from benchmarks.extraction.publish import publish

        page = ROOT / "docs" / "results.md" if out.resolve() == _COMMITTED else None
        written = [str(path) for path in publish(out, work, planned, page=page, readme=readme)]
        if as_json:
            print_json(written)
        else:
            click.echo("\n".join(written))
        return 0
    if experiment is not None:
        found = repeat(experiment, experiments, place)
        if as_json:
            print_json(asdict(found) | {"inside": found.inside})
        else:
            click.echo(str(found))
        return 0 if found.inside else 1
    summary = run(experiments, place, jobs=jobs, log=lambda line: click.echo(line, err=True))
    if as_json:
        print_json(asdict(summary))
    else:
        click.echo(
            f"{len(summary.done)} experiments run, {summary.there} were there, "
            f"{len(summary.left)} left, {len(summary.failed)} failed ({work / 'experiments'})"
        )
        for name, why in summary.failed.items():
            click.echo(f"failed: {name}: {why}", err=True)
    return 1 if summary.failed else 0


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


COMMANDS = (bench_extraction, bench_speed, bench_hardware)
