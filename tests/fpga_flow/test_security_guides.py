"""The guides for security testers and for pytest run as they stand."""

import re
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Uint8ActPerTensorFloat
from click.testing import CliRunner
from torch import nn

from divqat_brevitas.data import load
from divqat_brevitas.extraction import Victim
from fpga_flow import load_engine
from fpga_flow.cli import cli
from fpga_flow.export import export_qonnx
from fpga_flow.pytest_plugin import NEEDS
from fpga_flow.serve import QueryLedger, Service, running

pytest_plugins = ["pytester"]
GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def blocks(guide, language="python"):
    text = (GUIDES / guide).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """An untrained classifier of the digits' shape: what the guides call model.onnx."""
    images = torch.from_numpy(load("digits", "val")[0].astype(np.float32) / 255)
    torch.manual_seed(0)
    network = nn.Sequential(
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 10, bias=True, weight_bit_width=4),
    )
    with torch.no_grad():
        network(images)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_qonnx(network.eval(), path, images[:8])
    return path


def test_the_security_guide_runs(onnx, monkeypatch, capsys):
    pytest.importorskip("art", reason="ART is not installed: pip install 'divqat[art]'")
    monkeypatch.chdir(onnx.parent)
    before = np.random.get_state()
    victim = Victim(load_engine(onnx), budget=5000)
    service = Service(victim, (1, 8, 8), 10, QueryLedger(None, {}, 5000))
    try:
        with running(service) as url:
            code = "\n".join(blocks("security-testing.md"))
            assert "http://127.0.0.1:8080" in code
            exec(code.replace("http://127.0.0.1:8080", url), {})
    finally:
        np.random.set_state(before)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "150"
    assert printed[-1] == "150 4850"


def test_the_commands_of_the_security_guide_have_these_options():
    said = CliRunner().invoke(cli, ["serve", "--help"]).output
    text = (GUIDES / "security-testing.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<!-)--[a-z][a-z-]+", text))
    assert {"--ledger", "--public", "--clients"} <= named
    assert named <= set(re.findall(r"--[a-z-]+", said))


def test_the_pytest_guide_runs(onnx, pytester):
    (code,) = blocks("pytest.md")
    pytester.makepyfile(code)
    (pytester.path / "model.onnx").write_bytes(onnx.read_bytes())
    # The hardware's, which needs a run and starts FINN, is left to test_testing.
    result = pytester.runpytest_subprocess("--strict-markers", "-k", "not hardware")
    result.assert_outcomes(passed=3, deselected=1)


def test_the_pytest_guide_names_every_marker():
    text = (GUIDES / "pytest.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(needs_\w+)`", text)) == set(NEEDS)
