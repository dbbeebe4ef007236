"""A run with 8-bit codes, of which float arithmetic cannot decide all as integers do."""

from pathlib import Path

import pytest

from divqat_brevitas.files import read_json
from fpga_flow.cli import main

pytestmark = pytest.mark.slow
SETTINGS = ("model.bits=w8a8", "train.variants=float,divqat", "divqat.guard=1")


def test_eight_bits_pass_export_and_simulation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    train_and_export = ["run", "--preset", "smoke", *sets, "--out", out, "--until", "export"]
    for command in (train_and_export, ["simulate", out]):
        with pytest.raises(SystemExit) as done:
            main(command)
        assert done.value.code == 0, capsys.readouterr().err
    parity = read_json(tmp_path / "run/export/parity.json")["divqat"]
    rows = read_json(tmp_path / "run/simulate/equivalence.json")
    assert [(row["a"], row["b"]) for row in rows] == [("torch", "qonnx"), ("qonnx", "integer")]
    # How many images noise decides depends on this machine; that nothing else differs does not.
    assert parity["mismatches"] == parity["by_noise"]
    assert [row["mismatches"] for row in rows] == [row.get("by_noise", 0) for row in rows]
    for row in rows:
        assert bool(row.get("noise")) == (row.get("by_noise", 0) > 0)
