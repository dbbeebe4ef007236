"""A tiny network from training to a bitstream, and back: as a user runs it, on real tools."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from divqat_brevitas.files import read_json
from fpga_flow import load_engine
from fpga_flow.report import validate

COMMAND = [sys.executable, "-c", "from fpga_flow.cli import main; main()"]
SETTINGS = {
    "model.name": "mlp",
    "model.bits": "w2a2",
    "train.variants": "float,qat",
    "compile.until": "bitstream",
    "compile.target": "ecp5-25f",
    "compile.target_fps": "20000",
    "simulate.inputs": "50",
    "simulate.rtl_inputs": "1000",
    "simulate.netlist_inputs": "10",
    "simulate.chip_inputs": "3",
    "attack.engine": "rtl",
}
pytestmark = [pytest.mark.slow, pytest.mark.finn]


def divqat(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("chip") / "run"
    settings = [part for item in SETTINGS.items() for part in ("--set", "=".join(item))]
    result = divqat("run", "--preset", "smoke", *settings, "--out", path)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="module")
def results(run):
    found = read_json(run / "report" / "results.json")
    validate(found)
    return found


def test_the_bitstream_is_there_and_reported(run, results):
    rows = {row["stage"]: row for row in results["hardware"]}
    assert set(rows) == {"estimate", "synthesis", "place_and_route", "bitstream"}
    bitstream = run / "compile" / "qat" / "bitstream" / "chip.bit"
    assert rows["bitstream"]["bitstream_bytes"] == bitstream.stat().st_size > 100_000
    assert rows["bitstream"]["device"].startswith("LFE5U-25F")
    assert rows["bitstream"]["fmax_mhz"] >= rows["bitstream"]["clock_mhz"] == 50
    assert rows["bitstream"]["images_per_s"] >= 20_000


def test_every_level_down_to_the_chip_is_equal(results):
    levels = {(row["a"], row["b"]): row for row in results["equivalence"]}
    assert {
        ("integer", "rtl"): 1000,
        ("integer", "rtl with stalls"): 1000,
        ("rtl", "netlist"): 10,
        ("rtl", "chip"): 3,
    }.items() <= {pair: row["inputs"] for pair, row in levels.items()}.items()
    assert [row for row in levels.values() if row["mismatches"]] == []


def test_the_rtl_was_attacked(results):
    engines = {row["victim"]: row["engine"] for row in results["attacks"]}
    assert engines == {"float": "torch", "qat": "rtl"}


def test_logits_are_equal_to_the_last_bit(run):
    images = np.random.default_rng(0).random((20, 1, 8, 8), np.float32)
    expected = load_engine(run / "export" / "qat.onnx").predict(images)
    built = run / "compile" / "qat"
    for engine, path in (("finn", built), ("rtl", built / "design")):
        assert np.array_equal(load_engine(path, engine).predict(images), expected)


def test_flipped_weights_are_found_in_their_layer(run, tmp_path):
    onnx, built = run / "export" / "qat.onnx", tmp_path / "built"
    shutil.copytree(run / "compile" / "qat", built)
    sound = divqat("check", onnx, "--bisect", "--built", built, "--inputs", "8", "--json")
    assert sound.returncode == 0, sound.stderr
    assert json.loads(sound.stdout)["bisection"]["fault"] is None
    weights = built / "design" / "MVAU_rtl_1_weights.dat"
    # One bit of the first weight of every word: a single one may change no activation.
    words = weights.read_text().split()
    weights.write_text("\n".join(f"{int(word, 16) ^ 0b10:x}" for word in words))
    broken = divqat("check", onnx, "--bisect", "--built", built, "--inputs", "8", "--json")
    assert broken.returncode == 1, broken.stderr
    fault = json.loads(broken.stdout)["bisection"]["fault"]
    assert fault["level"] == "RTL"
    assert fault["nodes"][0].startswith("MVAU_rtl_1")


def test_a_board_without_vivado_is_exit_code_3_and_keeps_what_was_made(run, tmp_path):
    out = tmp_path / "z1"
    result = divqat("compile", run / "export" / "qat.onnx", "--out", out, "--target", "pynq-z1")
    assert result.returncode == 3, result.stderr
    assert "vivado" in result.stderr.lower()
    assert (out / "build.json").is_file()
    assert (out / "vivado" / "finn.yaml").is_file()


def test_the_built_chip_passes_its_selftest(run):
    built = run / "compile" / "qat"
    tested = divqat("board", "selftest", built, "--port", "simulation", "--images", "1", "--json")
    assert tested.returncode == 0, tested.stderr
    record = json.loads(tested.stdout)
    vectors = record["responses"]["images"] - 1
    assert vectors > 20
    assert record["responses"]["integers"] == (vectors + 1) * 10
    assert record["bitstream"]["part"].startswith("LFE5U-25F")
    assert record["core"]["simulated_images_per_s"] >= 20_000


def test_finn_config_writes_what_finn_reads(run, tmp_path):
    result = divqat("finn-config", run / "export" / "qat.onnx", "--out", tmp_path / "finn")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "finn" / "finn.yaml").is_file()
    assert str(tmp_path / "finn" / "finn.yaml") in result.stdout
