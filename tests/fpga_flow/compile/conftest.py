import pytest
import torch

from fpga_flow.compile import CompileSettings, compile_finn


@pytest.fixture(scope="session", autouse=True)
def _seed():
    torch.manual_seed(0)  # Brevitas' layers draw their weights globally


@pytest.fixture(scope="session")
def cnn_build(cnn_onnx, tmp_path_factory):
    out = tmp_path_factory.mktemp("finn") / "cnn"
    return compile_finn(cnn_onnx, out, CompileSettings(target_fps=10_000, clock_ns=5.0))
