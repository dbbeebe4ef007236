"""The `divqat` command. Results go to stdout, everything else to stderr.

Nothing heavy is imported before a command needs it: `divqat --help` stays quick.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from divqat_brevitas.errors import DivQATWarning, InputError
from fpga_flow.cli.board import board
from fpga_flow.cli.machine import bench, data, doctor, plugins
from fpga_flow.cli.models import check, finn_config, serve
from fpga_flow.cli.options import PATH, PluggedCommands, emit, json_option, print_json, set_option
from fpga_flow.cli.ownership import ownership

if TYPE_CHECKING:
    from fpga_flow.api import StagesRun

STAGES = {
    "train": "Train the victims: float, quantized, QAT, DivQAT.",
    "export": "Write the victims as QONNX files, if they pass the parity gate.",
    "compile": "Map the victims to hardware with FINN.",
    "simulate": "Compare the engines, integer by integer.",
    "attack": "Attack the victims: query an engine, train clones.",
    "report": "Write report/results.json and the page.",
}


@click.group(
    cls=PluggedCommands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""divqat run --preset smoke --out runs/smoke      all stages, small
              divqat run my.toml --set train.float_epochs=3   your settings
              divqat run --out runs/smoke                     continue
              divqat doctor                                   what this machine can do""",
)
@click.version_option(package_name="divqat", message="divqat %(version)s")
def cli() -> None:
    """Train low-bit CNNs that are hard to copy, put them on an FPGA, and attack them.

    Exit codes: 0 fine, 1 a check failed, 2 bad input or usage, 3 a tool is missing,
    130 interrupted (the same command continues).
    """


@cli.command(
    "run",
    epilog="""divqat run --preset smoke --out runs/smoke
              divqat run my.toml --set attack.budgets=[1000,5000] --seeds 0,1,2
              divqat run --out runs/smoke""",
)
@click.argument("config", required=False, type=PATH)
@click.option("--preset", metavar="NAME", help="Settings that come with divqat.")
@click.option("--data", metavar="NAME", help="Data set: --set data.name=NAME.")
@click.option("--bits", metavar="wXaY", help="Bit widths: --set model.bits=wXaY.")
@click.option("--seeds", metavar="N,N", help="Training seeds: --set run.seeds=N,N.")
@set_option
@click.option("--out", type=PATH, help="Run directory [runs/NAME].")
@click.option("--until", type=click.Choice(list(STAGES)), help="Stop after this stage.")
@json_option
def run_command(
    config: Path | None,
    preset: str | None,
    data: str | None,
    bits: str | None,
    seeds: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    until: str | None,
    as_json: bool,
) -> int:
    """Run all stages, or continue a run.

    A stage whose inputs did not change is not run again. Settings come from the
    preset, then CONFIG.toml, then --set. Without preset and CONFIG.toml they come
    from the run directory, or from the preset demo if it is new.
    """
    flags = {"data.name": data, "model.bits": bits, "run.seeds": seeds}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    changes = [*overrides, *given]
    return _run_stages(
        as_json, settings=config, preset=preset, overrides=changes, out=out, until=until
    )


def _stage_command(stage: str, summary: str) -> None:
    @cli.command(stage, help=summary, epilog=f"divqat {stage} runs/smoke")
    @click.argument("directory", type=PATH)
    @set_option
    @json_option
    def command(directory: Path, overrides: tuple[str, ...], as_json: bool) -> int:
        return _run_stages(as_json, out=directory, only=stage, overrides=overrides)


_stage_command("train", STAGES["train"])
_stage_command("export", STAGES["export"])


@cli.command(
    "compile",
    help=f"""{STAGES["compile"]}

    For a run directory this is its compile stage; for a QONNX file, the results go to --out. Exit
    code 1 if a design does not fit the device or misses its clock.""",
    epilog="""divqat compile runs/smoke
              divqat compile runs/smoke --target ecp5-85f
              divqat compile model.onnx --target ecp5-85f --out build""",
)
@click.argument("path", type=PATH)
@click.option("--target", metavar="NAME", help="Device or board; builds a bitstream for it.")
@click.option("--out", type=PATH, help="Folder, for a QONNX file.")
@set_option
@json_option
def _compile(
    path: Path, target: str | None, out: Path | None, overrides: tuple[str, ...], as_json: bool
) -> int:
    if path.is_file():
        if out is None:
            raise InputError(f"{path} is a file: name a folder for what is built (--out DIR).")
        return _compile_file(path, target, out, overrides, as_json)
    if out is not None:
        raise InputError(f"--out goes with a QONNX file; {path} is no file.")
    if target is not None:
        overrides = (*overrides, f"compile.target={target}", "compile.until=bitstream")
    return _run_stages(as_json, out=path, only="compile", overrides=overrides)


_stage_command("simulate", STAGES["simulate"])
_stage_command("attack", STAGES["attack"])


@cli.command(
    "report",
    help=f"""{STAGES["report"]}

    With several runs and --out: compare the runs on one page. Rows are runs and victims; runs on
    other data or engines form separate groups.

    With --claims: print how hard the trained models are to copy, with intervals, and judge the
    claims of the paper's abstract as supported, not supported or undecided. A claim needs three
    trained victims. The numbers come from a run, a results.json or a benchmark's folder. The exit
    code is 0 for every verdict: a refuted claim is a finding, not a failure.""",
    epilog="""divqat report runs/smoke
              divqat report runs/a runs/b --out runs/a-and-b
              divqat report --claims runs/smoke
              divqat report --claims benchmarks/extraction --json""",
)
@click.argument("paths", metavar="DIR...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="Folder of the comparison of several runs.")
@click.option("--claims", is_flag=True, help="Print how hard to copy, and the claims.")
@set_option
@json_option
def _report(
    paths: tuple[Path, ...], out: Path | None, claims: bool, overrides: Sequence[str], as_json: bool
) -> int:
    if len(paths) > 1 or out is not None:
        if claims or overrides:
            raise InputError("--claims and --set go with one run, and without --out.")
        return _compare(paths, out, as_json)
    if claims:
        from fpga_flow.report.claims import claims_document, claims_text

        emit(as_json, lambda: claims_document(paths[0]), lambda: claims_text(paths[0]))
        return 0
    return _run_stages(as_json, out=paths[0], only="report", overrides=overrides)


def _compare(paths: tuple[Path, ...], out: Path | None, as_json: bool) -> int:
    from fpga_flow.report import comparison_text, write_comparison
    from fpga_flow.report.comparison import document

    if out is None or len(paths) < 2:
        raise InputError(
            "A comparison needs several runs and a folder for its page: "
            "`divqat report RUN1 RUN2 --out DIR`."
        )
    groups = write_comparison(paths, out)
    emit(as_json, lambda: document(groups), lambda: comparison_text(groups, out / "index.html"))
    return 0


def _compile_file(
    path: Path, target: str | None, out: Path, overrides: Sequence[str], as_json: bool
) -> int:
    from fpga_flow.api import build
    from fpga_flow.console import columns

    with _quiet():
        built = build(path, target, out=out, overrides=overrides)
    rows = [row.model_dump(exclude_unset=True) for row in built.rows]
    names = ("stage", "device", "lut", "bram", "fmax_mhz", "images_per_s", "tool")
    emit(
        as_json,
        lambda: {"model": str(path), "out": str(out), "hardware": rows},
        lambda: columns([names, *([row[name] for name in names] for row in rows)]),
    )
    return 0


def _run_stages(as_json: bool, **arguments: Any) -> int:
    """``run_stages``, printed."""
    from fpga_flow.api import run_stages

    with _quiet():
        done = run_stages(**arguments)
    code = 0 if done.missing is None else 3
    emit(as_json, lambda: _run_document(done, code), lambda: _run_text(done))
    if done.missing is not None:
        click.echo(f"error: {done.missing.stage} did not run: {done.missing.reason}", err=True)
    return code


@contextmanager
def _quiet() -> Iterator[None]:
    """Whatever libraries print must not get between our results on stdout.

    What they warn of is for developers; our own warnings are for users, one line each.
    """
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not _debugging():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", DivQATWarning)
            warnings.showwarning = _warn
        yield


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    click.echo(f"warning: {message}", err=True)


def _run_document(done: "StagesRun", code: int) -> dict[str, Any]:
    results = done.directory / "report" / "results.json"
    return {
        "run": str(done.directory),
        "stages": [vars(outcome) for outcome in done.stages],
        "results": str(results) if results.is_file() else None,
        "exit_code": code,
    }


def _run_text(done: "StagesRun") -> str:
    last = done.stages[-1]
    if last.stage == "report" and last.status == "done":
        from fpga_flow.pipeline.stages.report import summary

        return summary(done.directory)
    return f"{last.stage}: {last.status} ({done.directory / last.stage})"


for _command in (check, finn_config, board, bench):
    cli.add_command(_command)


@cli.command(
    epilog="""divqat sweep sweep.toml --out runs/sweep --list
              divqat sweep sweep.toml --out runs/sweep --workers 4
              divqat sweep sweep.toml --out /shared/sweep --cluster tcp://head:8786""",
)
@click.argument("sweep", type=PATH)
@click.option("--out", required=True, type=PATH, help="Folder of the runs.")
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

    from fpga_flow.api import sweep as run_sweep
    from fpga_flow.pipeline.sweep_run import table_text

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
        lines = [f"{row['state']:11}  {row['task']}" for row in table]
        emit(as_json, lambda: table, lambda: "\n".join(lines))
        return code
    emit(
        as_json,
        lambda: {"out": str(out), **asdict(summary), "tasks": table, "exit_code": code},
        lambda: (
            f"{table_text(table)}\n{len(summary.done)} tasks run, {summary.there} were there, "
            f"{len(summary.left)} left, {len(summary.failed)} failed ({out / 'summary.csv'})"
        ),
    )
    for name, why in (summary.failed | summary.missing).items():
        click.echo(f"{name}: {why}", err=True)
    return code


for _command in (serve, ownership, plugins, doctor, data):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command (None: the process's) and leave with its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in arguments
    try:
        code = cli.main(args=arguments, prog_name="divqat", standalone_mode=False)
    except click.ClickException as e:
        code = e.exit_code
        if as_json:
            _print_error_json(type(e).__name__, e.format_message(), code)
        e.show()
    except BrokenPipeError:
        # The reader of our output left (`divqat doctor | head`); nothing to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as e:
        from fpga_flow.errors import explain, is_bug

        message, code = explain(e)
        if is_bug(e) and _debugging():
            traceback.print_exc()
        if as_json:
            _print_error_json(type(e).__name__, message, code)
        click.echo(message if code == 130 else f"error: {message}", err=True)
    sys.exit(code)


def _debugging() -> bool:
    return os.environ.get("DIVQAT_DEBUG") == "1"


def _print_error_json(kind: str, message: str, code: int) -> None:
    print_json({"error": {"type": kind, "message": message}, "exit_code": code})
