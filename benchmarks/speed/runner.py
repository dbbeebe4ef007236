"""Run suites, keep their records, one JSON a suite, and make the page of all."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.pages import table
from benchmarks.speed.environment import environment, load_average
from benchmarks.speed.suite import SUITES, Context, Record, load_suite
from divqat_brevitas.errors import InputError, ToolMissingError, unknown_name
from divqat_brevitas.files import read_json, write_json, write_text
from fpga_flow.report.charts import save

SCHEMA = 1


def run_suites(
    names: Sequence[str], folder: Path, context: Context
) -> tuple[dict[str, Record], dict[str, str]]:
    """Measure the suites ``names`` (none: all) and write ``folder/<suite>.json``.

    Args:
        names: keys of ``SUITES``.
        folder: of the records; a record appears whole or not at all.
        context: how to measure.

    Returns:
        The records, and the missing tool of each suite that cannot run here.

    Raises:
        InputError: no such suite, before anything is measured.

    Example:
        >>> run_suites(["training"], Path("benchmarks/speed"), Context())  # doctest: +SKIP
    """
    for name in names:
        if name not in SUITES:
            raise unknown_name("speed suite", name, SUITES)
    records: dict[str, Record] = {}
    lacking: dict[str, str] = {}
    for name in dict.fromkeys(names or SUITES):
        context.log(f"speed: {name}: {SUITES[name].about}")
        before, start = load_average(), time.perf_counter()
        try:
            found = load_suite(name).measure(context)
        except ToolMissingError as e:
            lacking[name] = str(e)
            continue
        records[name] = {
            "schema": SCHEMA,
            "suite": name,
            "quick": context.quick,
            "rounds": context.rounds,
            "seconds": round(time.perf_counter() - start, 1),
            "load": {"before": before, "after": load_average()},
            "environment": environment(context.threads),
            "result": found,
        }
        write_json(folder / f"{name}.json", records[name])
    return records, lacking


def read_records(folder: Path) -> Mapping[str, Record]:
    """The records of known suites in ``folder``, in the order published.

    Raises:
        InputError: none there; a damaged one; one of another schema or of a quick run.
    """
    found: dict[str, Record] = {}
    for name in SUITES:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        record = read_json(path)
        again = f"Run divqat bench speed --suite {name} --out {folder} again."
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise InputError(f"{path} is no record of schema {SCHEMA}. {again}")
        if record["quick"]:
            raise InputError(f"{path} is of a quick run, whose sizes say nothing. {again}")
        found[name] = record
    if not found:
        raise InputError(f"{folder} holds no speed record. Run divqat bench speed first.")
    return found


def publish(folder: Path) -> list[Path]:
    """Write ``folder/README.md`` and the suites' figures; returns the files.

    Raises:
        InputError: no record, a damaged or quick one.

    Example:
        >>> publish(Path("benchmarks/speed"))  # doctest: +SKIP
    """
    records = read_records(folder)
    write_text(folder / "README.md", page(records))
    return [folder / "README.md", *_figures(records, folder)]


def _figures(records: Mapping[str, Record], folder: Path) -> list[Path]:
    """Write ``folder/<suite>.svg`` of every suite that draws one."""
    paths = []
    for name, record in records.items():
        charts = getattr(load_suite(name), "charts", None)
        if charts is not None:
            paths.append(save(charts(record["result"]), folder / f"{name}.svg"))
    return paths


def page(records: Mapping[str, Record]) -> str:
    """The whole page: a section a suite, each with what it ran on."""
    lines = [
        "# Speed",
        "",
        "Made by `divqat bench speed --publish` from the JSON files beside it, which hold every "
        "sample, the versions, the processor's instruction sets and the hash of the source. "
        "Contestants take turns (A B C, C B A, ...); given are medians over the rounds with "
        "quartiles in brackets, and a ratio is the median of the ratios within a round. "
        "Measure again: `divqat bench speed`.",
        "",
        *summary(records),
    ]
    for name, record in records.items():
        section = load_suite(name).section(record["result"])
        lines += [f"## {section.title}", "", *section.lines, "", _conditions(name, record), ""]
    return "\n".join(lines)


def summary(records: Mapping[str, Record]) -> list[str]:
    """The table of the summary lines of every suite."""
    rows = [
        (line.what, line.ours, line.value, line.beside)
        for name, record in records.items()
        for line in load_suite(name).section(record["result"]).summary
    ]
    return table(("What is compared", "Ours", "Ratio", "To"), rows)


def _conditions(name: str, record: Record) -> str:
    where = record["environment"]
    cpu, load = where["cpu"], record["load"]["before"]
    busy = "" if load is None else f", load average {load[0]:.1f} at the start"
    return (
        f"*`divqat bench speed --suite {name}`: {record['rounds']} rounds, {where['threads']} "
        f"thread(s) of {cpu['usable']} cores, {cpu['model']}{busy}; source "
        f"`{where['source'][:12]}`.*"
    )
