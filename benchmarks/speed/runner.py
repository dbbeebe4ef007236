"""Run suites and keep their records, one JSON a suite."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.speed.environment import environment, load_average
from benchmarks.speed.suite import SUITES, Context, Record, load_suite
from divqat_brevitas.errors import InputError, ToolMissingError, unknown_name
from divqat_brevitas.files import read_json, write_json

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
        The records, and for suites that cannot run here what they lack.

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
