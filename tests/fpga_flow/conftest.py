from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fpga_flow.compile import FinnBuild


def _export(name: str, *arguments: int, folder: Path) -> Path:
    import finn_networks as networks
    import torch

    torch.manual_seed(0)  # Brevitas' layers draw their weights globally
    network = getattr(networks, name)(*arguments)
    path: Path = networks.export(network, (1, 8, 8), folder / f"{name}.onnx")
    return path


@pytest.fixture(scope="session")
def mlp_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dense layers with 4-bit weights, as QONNX."""
    return _export("mlp", 4, 8, folder=tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def cnn_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network with 2-bit weights, as QONNX."""
    return _export("cnn", 2, 8, folder=tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def cnn_build(cnn_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> "FinnBuild":
    """The small convolutional network, built with FINN."""
    from finn_networks import finn_worker

    from fpga_flow.compile import CompileSettings, compile_finn

    settings = CompileSettings(target_fps=10_000, clock_ns=5.0)
    return compile_finn(cnn_onnx, tmp_path_factory.mktemp("finn") / "cnn", settings, finn_worker())
