"""The real six stages on the smallest preset, as a user runs them."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.extraction import TorchPredictor
from divqat_brevitas.files import read_json
from fpga_flow.cli import commands as cli
from fpga_flow.console import Progress
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import exported, identify, predictor, split
from fpga_flow.report import validate

COMMAND = [sys.executable, "-c", "from fpga_flow.cli import main; main()"]
SETTINGS = ["--preset", "smoke", "--set", "compile.variants=qat", "--set", "divqat.guard=1"]
pytestmark = [pytest.mark.slow, pytest.mark.finn]


def divqat(*arguments, cwd=None):
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("smoke") / "run"
    # A relative path, as in the README: no stage may depend on the folder it runs in.
    result = divqat("run", *SETTINGS, "--out", path.name, cwd=path.parent)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 5
    assert str(Path(path.name) / "report" / "index.html") in result.stdout
    return path


def results(path):
    return read_json(path / "report" / "results.json")


def test_the_results_are_of_schema_1_and_every_engine_agrees(whole):
    found = results(whole)
    validate(found)
    assert [row["variant"] for row in found["victims"]] == ["float", "qat", "divqat"]
    ladder = {(row["variant"], row["a"], row["b"]) for row in found["equivalence"]}
    for variant in ("qat", "divqat"):
        assert {(variant, "torch", "qonnx"), (variant, "qonnx", "integer")} <= ladder
    finn = [row for row in found["equivalence"] if row["b"].startswith("finn ")]
    assert len(finn) > 10
    assert {row["variant"] for row in finn} == {"qat"}
    assert all(row["mismatches"] == 0 and row["inputs"] >= 50 for row in found["equivalence"])
    assert {row["victim"] for row in found["attacks"]} == {"float", "qat", "divqat"}
    assert {row["engine"] for row in found["attacks"] if row["victim"] != "float"} == {"integer"}
    tools = [(row["variant"], row["stage"], row["tool"].split()[0]) for row in found["hardware"]]
    assert tools == [("qat", "estimate", "finn-plus"), ("qat", "estimate", "divqat")]
    stitched = {row["b"]: row["inputs"] for row in found["equivalence"] if row["a"] == "integer"}
    assert stitched["rtl"] == stitched["rtl with stalls"] == 1000
    assert {stage["status"] for stage in found["run"]["stages"].values()} == {"done"}


def test_the_engine_attacked_is_the_exported_network(whole):
    run = RunDirectory(whole)
    context = StageContext("attack", run, run.config(), Progress(), frozenset({"compile"}))
    assert run.config() == resolve(preset="smoke", overrides=[SETTINGS[3], SETTINGS[5]])
    victim = identify(run.config(), "qat", 0)
    images = split(run.config(), "test")[0][:40]
    integer, qonnx, finn = (predictor(context, victim, e) for e in ("integer", "qonnx", "finn"))
    torch = TorchPredictor(exported(context, victim))
    labels = [e.predict(images).argmax(axis=1) for e in (integer, qonnx, finn, torch)]
    assert all(np.array_equal(labels[0], other) for other in labels[1:])


def test_again_nothing_runs(whole):
    result = divqat("run", "--out", whole, "--json")
    assert [row["ran"] for row in json.loads(result.stdout)["stages"]] == [False] * 6


def test_check_shows_layers_and_legality(whole):
    result = divqat("check", whole / "export" / "qat.onnx")
    assert result.returncode == 0
    assert "Conv_0" in result.stdout
    document = json.loads(divqat("check", whole / "export" / "qat.onnx", "--json").stdout)
    assert document["findings"] == []
    assert {"name", "op", "macs"} <= document["layers"][0].keys()
    broken = divqat("check", whole / "config.toml")
    assert broken.returncode == 2
    assert "no ONNX file" in broken.stderr
    assert "Traceback" not in broken.stderr


def killed_when(path, seen):
    """Start a run, and kill it (-9) as soon as ``seen`` holds."""
    process = subprocess.Popen(
        [*COMMAND, "run", *SETTINGS, "--out", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not seen() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL


def test_killed_in_every_stage_it_ends_with_the_same_results(whole, tmp_path):
    path = tmp_path / "run"
    moments = [
        "export/qat.onnx",
        "compile/.qat.building",
        "simulate/qat.json",
        "attack/float-soft-none-in-knockoff-random-soft-vgg-small-100-s0.json",
    ]
    for moment in moments:
        killed_when(path, (path / moment).exists)
    final = divqat("run", "--out", path)
    assert final.returncode == 0, final.stderr
    assert results(path) == results(whole)
    leftovers = [file for file in path.rglob(".*") if file.name not in (".lock", ".tasks")]
    assert leftovers == []


def test_without_finn_everything_else_is_there(whole, tmp_path, monkeypatch, capsys):
    def missing():
        raise ToolMissingError("finn-plus is not installed. Install it with `pip install ...`")

    path = tmp_path / "run"
    shutil.copytree(whole, path)
    shutil.rmtree(path / "compile")
    monkeypatch.setattr("fpga_flow.compile.compiler.require_finn", missing)
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "--out", str(path)])
    assert caught.value.code == 3
    out, err = capsys.readouterr()
    assert "error: compile did not run: finn-plus is not installed" in err
    assert len(out.splitlines()) == 5
    found = results(path)
    assert found["run"]["stages"]["compile"]["status"] == "missing-tool"
    assert found["hardware"] == []
    assert {row["b"] for row in found["equivalence"]} == {"qonnx", "integer"}
    assert found["attacks"] == results(whole)["attacks"]
    page = (path / "report" / "index.html").read_text(encoding="utf-8")
    assert "finn-plus is not installed" in page


@pytest.mark.parametrize(
    ("damaged", "again"),
    [
        (["train/qat.safetensors"], {"train"}),
        (
            [
                "export/qat.onnx",
                "compile/qat/models/step_streamline.onnx",
                "attack/float-soft-none-in-knockoff-random-soft-vgg-small-100-s0.json",
            ],
            {"export", "compile", "simulate", "attack", "report"},
        ),
    ],
)
def test_a_corrupt_file_is_made_again(whole, tmp_path, damaged, again):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    for name in damaged:
        with Path(path / name).open("r+b") as file:
            file.seek(20)
            file.write(b"damage")
    document = json.loads(divqat("run", "--out", path, "--json").stdout)
    ran = {row["stage"] for row in document["stages"] if row["ran"]}
    # FINN's record of seconds changes what depends on it; a safetensors header has no fixed order.
    assert again <= ran
    assert results(path) == results(whole)
