import finn_networks as networks
import pytest
import torch

from fpga_flow.compile import CompileSettings, compile_finn


@pytest.fixture(scope="session", autouse=True)
def _seed():
    torch.manual_seed(0)  # Brevitas' layers draw their weights globally


@pytest.fixture(scope="session")
def mlp_onnx(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "mlp.onnx"
    return networks.export(networks.mlp(4, 8), (1, 8, 8), path)


@pytest.fixture(scope="session")
def cnn_onnx(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "cnn.onnx"
    return networks.export(networks.cnn(2, 8), (1, 8, 8), path)


@pytest.fixture(scope="session")
def cnn_build(cnn_onnx, tmp_path_factory):
    out = tmp_path_factory.mktemp("finn") / "cnn"
    return compile_finn(cnn_onnx, out, CompileSettings(target_fps=10_000, clock_ns=5.0))
