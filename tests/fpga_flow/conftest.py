from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled simulations, and files that passed, are kept for one session, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIVQAT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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
