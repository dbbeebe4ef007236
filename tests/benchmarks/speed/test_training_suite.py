"""The suite `training`: its contestants, its record, what is published of it."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import contestants as taking_part
from benchmarks.speed import memory as weighing
from benchmarks.speed import training
from benchmarks.speed.contestants import NAMES, contestants
from benchmarks.speed.memory import memory
from benchmarks.speed.suite import Context
from benchmarks.speed.training import operators
from divqat_brevitas.errors import CheckFailedError


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
