"""Suite ``startup``: how long the command line and the imports take, in fresh processes.

Every sample is a whole process from its start to its end, as a user waits for it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.pages import table
from benchmarks.speed.suite import Context, Line, Record, Section
from benchmarks.speed.timing import interleaved, ratio, shown_ratio, shown_seconds

PROGRAMS = {
    "python": "pass",
    "help": "import sys; from fpga_flow.cli import main; sys.argv[1:] = ['--help']; main()",
    "brevitas": "import brevitas",
    "brevitas+package": "import brevitas, divqat_brevitas",
    "stock": "import brevitas.nn, brevitas.quant",
    "ours": "import brevitas.nn, brevitas.quant\n"
    "from divqat_brevitas import DivQATLoss, freeze_reference, swap_quantizers\n"
    "from divqat_brevitas.quant import Int4WeightPerChannelFloatDivQAT",
}
_SHOWN = {
    "python": "Python alone",
    "help": "`divqat --help`",
    "brevitas": "`import brevitas`",
    "brevitas+package": "`import brevitas, divqat_brevitas`",
    "stock": "`import brevitas.nn, brevitas.quant`",
    "ours": "the same, and the plug-in's loss, swap and quantizers",
}
_TOP = 15
_LINE = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|\s*(\S+)")


def measure(context: Context) -> Record:
    """Time the programs in turns, and list the modules whose import takes most."""
    names = ("python", "help") if context.quick else tuple(PROGRAMS)
    runs = {name: partial(_run, PROGRAMS[name], context.threads) for name in names}
    times = interleaved(runs, context.rounds)
    pairs = [("brevitas+package", "brevitas"), ("ours", "stock"), ("help", "python")]
    return {
        "seconds": {name: spread.record() for name, spread in times.items()},
        "ratios": {
            name: ratio(times[name], times[beside]).record()
            for name, beside in pairs
            if name in times and beside in times
        },
        "imports": {name: slowest_imports(PROGRAMS[name], context.threads) for name in names[1:]},
    }


def slowest_imports(program: str, threads: int = 1) -> list[dict[str, Any]]:
    """The modules that take most of a program's imports, by ``python -X importtime``.

    Returns:
        Up to 15 of ``{"module", "self_us", "cumulative_us"}``, slowest itself first.

    Example:
        >>> slowest_imports("import json")[0].keys()
        dict_keys(['module', 'self_us', 'cumulative_us'])
    """
    found = _LINE.findall(_run(program, threads, "-X", "importtime"))
    rows = [
        {"module": module, "self_us": int(own), "cumulative_us": int(all_)}
        for own, all_, module in found
    ]
    return sorted(rows, key=lambda row: -row["self_us"])[:_TOP]


def _run(program: str, threads: int, *options: str) -> str:
    """Run a program in a fresh process; what it says on stderr."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *options, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    ).stderr


def section(record: Record) -> Section:
    """Times, ratios, and the slowest imports."""
    seconds: Mapping[str, Any] = record["seconds"]
    ratios: Mapping[str, Any] = record["ratios"]
    lines = [
        "A fresh process each, from its start to its end.",
        "",
        *table(("Process", "Time"), [(_SHOWN[n], shown_seconds(s)) for n, s in seconds.items()]),
    ]
    summary = [
        Line("Start", "`divqat --help`", shown_seconds(seconds["help"]), "Python alone: "
             + shown_seconds(seconds["python"])),
    ]  # fmt: skip
    for name, beside in (("brevitas+package", "brevitas"), ("ours", "stock")):
        if name in ratios:
            summary.append(Line("Import", _SHOWN[name], shown_ratio(ratios[name]), _SHOWN[beside]))
    slow = record["imports"].get("ours", [])
    if slow:
        shown = [f"{row['module']} {row['self_us'] / 1000:.0f} ms" for row in slow[:8]]
        lines += ["Slowest modules of the last, themselves: " + ", ".join(shown) + ".", ""]
    return Section("Start-up", lines, summary)
