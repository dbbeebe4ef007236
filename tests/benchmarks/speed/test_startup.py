"""What start-up must not import, seen from a fresh process; times are the suite `startup`'s."""

import json
import subprocess
import sys

from benchmarks.speed.suite import Context, load_suite

HEAVY = ["torch", "brevitas", "onnx", "numpy", "pydantic", "matplotlib", "scipy", "distributed"]

EVERY_HELP = """
import contextlib, io, json, sys
import click
from fpga_flow.cli import cli, main

def walk(group, path):
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name)

seen = {}
for path in walk(cli, ()):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([*path, "--help"])
    seen[" ".join(path)] = sorted(set(HEAVY) & set(sys.modules))
print(json.dumps(seen))
"""


def child(program):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    ).stdout


def test_no_commands_help_imports_anything_heavy():
    seen = json.loads(child(f"HEAVY = {HEAVY}\n{EVERY_HELP}"))
    assert {"", "run", "train", "sweep", "bench extraction", "bench speed"} <= set(seen)
    assert {path: heavy for path, heavy in seen.items() if heavy} == {}


def test_importing_the_packages_imports_nothing_but_themselves():
    program = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "import divqat_brevitas, fpga_flow\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))\n"
    )
    added = set(json.loads(child(program))) - set(sys.stdlib_module_names)
    assert added == {"divqat_brevitas", "fpga_flow"}


def test_the_suite_times_processes_and_names_the_slowest_imports():
    suite = load_suite("startup")
    record = suite.measure(Context(rounds=2, quick=True))
    assert set(record["seconds"]) == {"python", "help"}
    assert len(record["ratios"]["help"]["samples"]) == 2
    modules = [row["module"] for row in record["imports"]["help"]]
    assert 0 < len(modules) <= 15
    section = suite.section(record)
    assert "`divqat --help`" in "".join(section.lines)
    assert section.summary[0].what == "Start"
