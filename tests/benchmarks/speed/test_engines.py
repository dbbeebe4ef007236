"""The suite of engines: what it times computes the same, and its record has it all."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.speed import engines, racers
from benchmarks.speed.exported import Exported, exported
from benchmarks.speed.suite import Context
from divqat_brevitas.errors import CheckFailedError
from fpga_flow.integer.engine import IntegerEngine


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
