"""`divqat serve` as a user starts it: a child process, killed and started again."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Uint8ActPerTensorFloat
from click.testing import CliRunner
from torch import nn

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.extraction import BudgetExceededError, Victim
from fpga_flow import load_engine
from fpga_flow.cli import cli
from fpga_flow.export import export_qonnx
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.serve import RestVictim
from fpga_flow.serve.limits import bind, is_loopback, names_loopback, read_clients
from fpga_flow.serve.loading import load_served

# A shell may have left Ctrl-C ignored for its children.
START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from fpga_flow.cli import main; main()"
)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    torch.manual_seed(0)
    network = nn.Sequential(
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, bias=True, weight_bit_width=4),
    )
    images = torch.randint(0, 256, (8, 1, 8, 8)) / 255
    with torch.no_grad():
        network(images)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_qonnx(network.eval(), path, images)
    return path


@contextlib.contextmanager
def started(*arguments):
    """The command in a child, and what it printed once it listens."""
    child = subprocess.Popen(
        [sys.executable, "-c", START, "serve", *arguments, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in child.stdout:
            lines.append(line)
            if line == "}\n":
                break
        assert lines, child.stderr.read()
        yield child, json.loads("".join(lines))
    finally:
        child.kill()
        child.communicate()


@pytest.mark.slow  # three processes that import torch
def test_it_serves_counts_and_remembers_after_a_kill(onnx, tmp_path, images):
    model = shutil.copy(onnx, tmp_path / "model.onnx")
    arguments = [str(model), "--oracle", "topk", "--k", "2", "--budget", "10"]
    with started(*arguments) as (child, said):
        assert said["input_shape"] == [1, 8, 8]
        victim = RestVictim(said["url"])
        expected = Victim(load_engine(onnx), "topk", k=2).query(images(7))
        np.testing.assert_array_equal(victim.query(images(7)), expected)
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    with started(*arguments) as (child, said):
        assert (said["queries_used"], said["remaining"]) == (7, 3)
        assert said["ledger"] == str(tmp_path / "model.queries.sqlite")
        victim = RestVictim(said["url"])
        with pytest.raises(BudgetExceededError):
            victim.query(images(4))
        victim.query(images(3))
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130


def run(*arguments):
    """The error that a wrong command line ends with."""
    result = CliRunner().invoke(cli, ["serve", *map(str, arguments)])
    return result.exception


def test_wrong_settings_are_input_errors(onnx, tmp_path):
    ledger = ("--ledger", tmp_path / "ledger.sqlite", "--port", "0")
    for arguments, said in (
        ((onnx, "--oracle", "sotf"), "did you mean 'soft'"),
        ((onnx, "--defence", "dpc:1"), "dcp"),
        ((onnx, "--engine", "intger"), "did you mean 'integer'"),
        ((onnx, "--k", "3"), "no option 'k'"),
        ((onnx, "--victim", "qat"), "no run directory"),
        ((onnx, "--host", "0.0.0.0"), "--public"),
        ((tmp_path, "--victim", "qat"), "not a run directory"),
        ((tmp_path / "no.onnx",), "no.onnx"),
        ((onnx, "--clients", tmp_path / "none.toml"), "none.toml"),
    ):
        error = run(*arguments, *ledger)
        assert isinstance(error, InputError), arguments
        assert said in str(error)
    assert not (tmp_path / "ledger.sqlite").exists()


def test_without_the_servers_packages_the_extra_is_named(onnx, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "fpga_flow.serve.server", raising=False)
    error = run(onnx, "--ledger", tmp_path / "ledger.sqlite")
    assert isinstance(error, ToolMissingError)
    assert "pip install 'divqat[serve]'" in str(error)
    assert not (tmp_path / "ledger.sqlite").exists()


CLIENTS = {
    "not TOML": "a = ",
    "no table": "red = 1",
    "unknown key": '[red]\ntoken = "0123456789abcdef"\nbugdet = 1',
    "short token": '[red]\ntoken = "short"',
    "no token": "[red]\nbudget = 1",
    "negative": '[red]\ntoken = "0123456789abcdef"\nbudget = -1',
    "boolean": '[red]\ntoken = "0123456789abcdef"\nbudget = true',
    "spaces": '[red]\ntoken = " 0123456789abcdef"',
    "equal": '[red]\ntoken = "0123456789abcdef"\n[blue]\ntoken = "0123456789abcdef"',
    "nobody": "",
}


@pytest.mark.parametrize("name", CLIENTS)
def test_bad_clients_files_are_named(tmp_path, name):
    path = tmp_path / "clients.toml"
    path.write_text(CLIENTS[name])
    with pytest.raises(InputError, match=r"clients\.toml"):
        read_clients(path)


def test_addresses():
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.1.2.3")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.0.2.1")
    assert names_loopback("LOCALHOST:80")
    assert not names_loopback("127.0.0.1.evil.example")
    assert not names_loopback("[::1")
    assert not names_loopback("")
    with pytest.raises(InputError, match="cannot resolve"):
        is_loopback("no.such.host.invalid")
    with bind("127.0.0.1", 0, public=False) as first, pytest.raises(InputError, match="--port"):
        bind("127.0.0.1", first.getsockname()[1], public=False)
    with pytest.raises(InputError, match="--public"):
        bind("0.0.0.0", 0, public=False)


@pytest.fixture
def run_directory(onnx, tmp_path):
    run = RunDirectory(tmp_path / "mine")
    run.save_config(resolve(overrides=["train.variants=float,ptq,qat"]))
    (run.path / "export").mkdir()
    shutil.copy(onnx, run.path / "export" / "qat.onnx")
    return run.path


def test_a_victim_of_a_run_is_served_through_its_file(run_directory, onnx, images):
    served = load_served(run_directory, "integer", "qat")
    expected = load_engine(onnx).predict(images(4))
    np.testing.assert_array_equal(served.predictor.predict(images(4)), expected)
    assert (served.shape, served.classes, served.name) == ((1, 8, 8), 5, "mine/qat")
    assert served.ledger == run_directory / "serve" / "qat.queries.sqlite"
    # The same file on its own is the same thing asked, by whatever engine.
    assert served.identity == load_served(onnx, "qonnx", None).identity


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        (None, "--victim ptq | --victim qat"),
        ("qta", "did you mean 'qat'"),
        ("float", "unknown victim"),
        ("ptq", "--until export"),
    ],
)
def test_a_run_without_that_victim_is_named(run_directory, victim, said):
    with pytest.raises(InputError) as caught:
        load_served(run_directory, "integer", victim)
    assert said in str(caught.value)
