"""The suites: contestants that compute the same, records, what is published of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.speed import attacks, cluster, engines, own_loop, racers, training
from benchmarks.speed import contestants as taking_part
from benchmarks.speed import memory as weighing
from benchmarks.speed.contestants import NAMES, contestants
from benchmarks.speed.exported import Exported, exported
from benchmarks.speed.memory import memory
from benchmarks.speed.suite import Context, Record, load_suite
from benchmarks.speed.training import operators
from divqat_brevitas.errors import CheckFailedError
from fpga_flow.integer.engine import IntegerEngine


@pytest.fixture(scope="module")
def few() -> dict[str, taking_part.Contestant]:
    return dict(contestants("cifar-cnn", "float32", 8))


def test_every_contestant_trains_a_network_of_its_own(
    few: dict[str, taking_part.Contestant],
) -> None:
    weights = {name: next(iter(one.loop.model.parameters())) for name, one in few.items()}
    assert len({w.data_ptr() for w in weights.values()}) == len(NAMES)
    assert all(torch.equal(w, weights["float"]) for w in weights.values())
    before = {name: w.detach().clone() for name, w in weights.items()}
    for one in few.values():
        one.step()
    assert all(not torch.equal(w, before[name]) for name, w in weights.items())


@pytest.mark.slow  # measures
def test_a_quick_run_gives_a_record_that_can_be_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "memory", lambda *a: {"start": 1, "peak": 3, "steps": 2})
    threads = torch.get_num_threads()
    try:
        record = json.loads(json.dumps(training.measure(Context(rounds=1, quick=True))))
    finally:
        torch.set_num_threads(threads)
    assert [row["precision"] for row in record["steps"]] == ["float32", "bfloat16"]
    for row in record["steps"]:
        assert set(row["seconds"]) == set(row["cpu_seconds"]) == set(NAMES)
        assert set(row["to_float"]) == set(NAMES) - {"float"}
        names = {one["name"] for one in row["operators"]["float"]}
        # Which operator convolves is the processor's: bfloat16 without AVX-512 is _slow_conv2d.
        assert any("convolution" in name or "conv2d" in name for name in names)
    page = "\n".join(training.section(record).lines)
    assert "| cifar-cnn, bfloat16, batch 8 | QAT, ours |" in page


def test_a_profile_names_the_operators_of_a_call() -> None:
    a = torch.rand(64, 64)
    found = operators(lambda: a @ a, calls=2)
    assert found[0]["name"] == "aten::mm"
    assert found[0]["calls"] == 1
    assert sum(one["share"] for one in found) == pytest.approx(1.0)


@pytest.mark.slow  # measures
def test_memory_is_that_of_a_process_of_its_own() -> None:
    found = memory("float", "cifar-cnn", "float32", 8, 1)
    if found is None:
        pytest.skip("this system does not tell the peak of a process")
    assert found["peak"] - found["start"] == found["steps"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is told on Linux alone")
def test_a_child_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "python"
    child.write_text("#!/bin/sh\necho no room left >&2\nexit 3\n")
    child.chmod(0o755)
    monkeypatch.setattr(weighing.sys, "executable", str(child))
    with pytest.raises(CheckFailedError, match="memory of float failed: no room left"):
        memory("float", "cifar-cnn", "float32", 8, 1)


@pytest.fixture(scope="module")
def record() -> Record:
    found: Record = json.loads(json.dumps(attacks.measure(Context(rounds=1, quick=True))))
    return found


@pytest.mark.slow  # measures
def test_every_query_is_counted_in_chunks(record: Record) -> None:
    run = record["run"]
    assert (run["queries"], run["counted"], run["batches"]) == (200, 200, 1)
    assert len(run["loss"]) == record["epochs"]


def test_parts_lie_within_the_whole(record: Record) -> None:
    seconds = record["run"]["seconds"]
    assert 0 < seconds["engine"] <= seconds["victim"]
    assert seconds["victim"] + seconds["training"] <= seconds["total"]
    memory = record["run"]["memory"]
    assert 0 < memory["pool"] < memory["before"] <= memory["peak"]


def test_plain_loops_start_where_ours_does() -> None:
    calls = attacks._epochs((1, 8, 8), "mlp", 64)
    assert set(calls) == set(attacks._SHOWN)
    (row,) = calls["ours"]()  # type: ignore[misc]
    assert row["epoch"] == 1
    for name in ("plain", "plain-nhwc"):
        assert sum(p.numel() for p in calls[name]().parameters()) > 0  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported("digits-cnn", tmp_path_factory.mktemp("speed"))


@pytest.fixture(scope="module")
def engine(network: Exported) -> IntegerEngine:
    return IntegerEngine(network.qonnx)


@pytest.mark.slow  # measures
def test_a_quick_run_is_recorded_and_shown(
    network: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.speed.exported.exported", lambda name, folder: network)
    record = json.loads(json.dumps(engines.measure(Context(rounds=1, quick=True))))
    (row,) = record["networks"]
    assert row["model"] == "digits-cnn"
    assert row["operations"] == 2 * (8 * 64 * 9 + 16 * 64 * 8 * 9 + 2560)
    expected = {"integer", "torch", "brevitas", "qonnx"} | (
        set() if "onnxruntime" in row["not_run"] else {"onnxruntime"}
    )
    for part, names in (("batched", expected | {"qonnx-alone"}), ("single", expected)):
        assert set(row[part]["seconds"]) == names
        assert set(row[part]["to_integer"]) == names - {"integer"}
    assert {"finn", "finn-cpp", "rtl"} <= set(row["not_run"])
    section = engines.section(record)
    text = "\n".join(section.lines)
    assert "Not run: FINN's C++ simulation" in text
    assert all(kind in text for kind in row["kernels"].values())
    assert {line.ours for line in section.summary} == {"integer engine"}


def test_engines_that_disagree_are_not_timed(network: Exported, engine: IntegerEngine) -> None:
    images = np.random.default_rng(0).random((8, *network.shape), dtype=np.float32)
    found, _ = racers.software(network, engine, threads=1)
    assert engines._check(engine, found, images)["images"] == 8
    wrong: dict[str, Any] = {**found, "qonnx": lambda images: -found["qonnx"](images)}
    with pytest.raises(CheckFailedError, match="'qonnx': False"):
        engines._check(engine, wrong, images)


def test_without_onnxruntime_the_others_run(
    network: Exported, engine: IntegerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(racers, "find_spec", lambda name: None)
    found, lacking = racers.software(network, engine, threads=1)
    assert set(found) == {"integer", "torch", "brevitas", "qonnx"}
    assert "not installed" in lacking["onnxruntime"]


def test_short_calls_are_repeated_and_counted_once() -> None:
    calls: list[str] = []
    found = engines._turns({"short": lambda: calls.append("x")}, rounds=2, least=0.001)
    assert len(calls) > 20
    assert found["short"].median < 0.001


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


def test_the_users_own_loop() -> None:
    record = json.loads(json.dumps(own_loop.measure(Context(rounds=1, quick=True))))
    rows = record["steps"]
    cases = {(row["precision"], row["layout"], row["phase"]) for row in rows}
    assert len(rows) == len(cases) == 8
    assert all(set(row["cpu_seconds"]) == {"float", "stock", "ours"} for row in rows)
    section = own_loop.section(record)
    assert len([line for line in section.lines if line.startswith("| lenet5")]) == 8
    assert [line.what.split(", ")[1] for line in section.summary] == ["calibrated", "first steps"]


@pytest.mark.slow  # runs in processes of its own
def test_a_dask_worker_killed_in_an_attack_changes_no_result_and_repeats_nothing_finished() -> None:
    pytest.importorskip("distributed", reason="the extra 'sweep' is not installed")
    record = json.loads(json.dumps(cluster.measure(Context(rounds=1, quick=True))))
    # The suite itself refuses results that differ, and finished work that ran again.
    assert sorted(row["begun"] for row in record["tasks"]) == [1, 1, 1, 2]
    assert all(row["finished"] == 1 for row in record["tasks"])
    assert all(row["queries_used"] == 100 for row in record["tasks"])
    (twice,) = (row["name"] for row in record["tasks"] if row["begun"] == 2)
    assert f"only {twice} was begun twice" in "\n".join(cluster.section(record).lines)
