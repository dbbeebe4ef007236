"""The worker process: missing, broken, killed, too slow; and its parent killed."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time

import finn_networks as networks
import psutil
import pytest
from torch import nn

from divqat_brevitas.errors import InputError, ToolMissingError
from fpga_flow.compile import BuildError, CompileSettings, FinnBuild, compile_finn, compiler
from fpga_flow.compile.worker_process import Worker

pytestmark = pytest.mark.finn


def test_finn_is_not_installed(cnn_onnx, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("finn") else find(name)
    )
    with pytest.raises(ToolMissingError) as error:
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings())
    assert "pip install '.[finn]'" in str(error.value)
    assert "pip install --no-deps mip finn-plus" in str(error.value)
    assert error.value.exit_code == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # builds with FINN
def test_finn_lacks_something_it_imports(cnn_onnx, tmp_path, monkeypatch):
    # A module of that name that cannot be imported shadows the real one in the worker.
    (tmp_path / "psutil.py").write_text("raise ModuleNotFoundError(\"No module named 'psutil'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match="cannot be imported: No module named 'psutil'"):
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings())


def test_worker_killed_in_the_middle(cnn_onnx, tmp_path, monkeypatch):
    class Killed(Worker):
        def run(self, job, timeout_s):
            threading.Timer(1.0, os.kill, (self.pid, signal.SIGKILL)).start()
            return super().run(job, timeout_s)

    monkeypatch.setattr(compiler, "Worker", Killed)
    with pytest.raises(BuildError, match=r"was killed \(signal 9\)") as error:
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings())
    assert error.value.exit_code == 1
    assert error.value.log == tmp_path / "out" / "finn.log"
    assert error.value.log.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "build.json").exists()


def test_worker_takes_too_long(cnn_onnx, tmp_path):
    with pytest.raises(BuildError, match=r"longer than 0\.2 s"):
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings(timeout_s=0.2))
    assert not (tmp_path / "out" / "build.json").exists()


@pytest.mark.slow
def test_parent_killed_then_built_again(cnn_onnx, tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from fpga_flow.compile import CompileSettings, compile_finn\n"
        "compile_finn(Path(sys.argv[1]), Path(sys.argv[2]), CompileSettings())\n"
    )
    out = tmp_path / "out"
    parent = psutil.Process(
        subprocess.Popen([sys.executable, "-c", program, str(cnn_onnx), str(out)]).pid
    )
    deadline = time.monotonic() + 120
    while not parent.children() and time.monotonic() < deadline:
        time.sleep(0.02)
    (worker,) = parent.children()
    parent.kill()
    parent.wait()
    worker.wait(timeout=60)  # it follows by itself; raises if it does not
    assert not (out / "build.json").exists()
    build = compile_finn(cnn_onnx, out, CompileSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert FinnBuild.load(out).estimates == build.estimates


@pytest.mark.slow  # builds with FINN
def test_a_failing_step_is_named_with_the_log(cnn_onnx, tmp_path, monkeypatch):
    class Sabotaged(Worker):
        def run(self, job, timeout_s):
            return super().run(job | {"settings": job["settings"] | {"clock_ns": "ten"}}, timeout_s)

    monkeypatch.setattr(compiler, "Worker", Sabotaged)
    with pytest.raises(BuildError) as error:
        compile_finn(cnn_onnx, tmp_path / "out", CompileSettings())
    assert error.value.step == "step_target_fps_parallelization"
    assert "step_target_fps_parallelization: TypeError" in str(error.value)
    assert "Traceback" in error.value.log_tail
    assert str(tmp_path / "out" / "finn.log") in str(error.value)
    assert error.value.log_tail.splitlines()[-1] in error.value.log.read_text()


@pytest.mark.slow  # builds with FINN
def test_what_finn_finds_itself_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "legality", lambda path: [])
    network = networks.cnn(4, 8)
    network[4] = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    path = networks.export(network, (1, 8, 8), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"step_integer_network says.*AveragePool"):
        compile_finn(path, tmp_path / "out", CompileSettings())
    assert (tmp_path / "out" / "finn.log").exists()
