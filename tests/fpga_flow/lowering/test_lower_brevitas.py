"""Models as Brevitas exports them: both exporters, its layers, its own example networks."""

from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.export import export_qonnx
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8Bias,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from equivalence import assert_equivalent
from numpy.typing import NDArray
from qonnx_graphs import images
from torch import Tensor, nn

from fpga_flow.lowering import load_model, lower

SHAPE = (2, 10, 10)


class Residual(nn.Module):
    """Every layer FINN users have: depthwise, residual, pools, biases, per-channel scales."""

    def __init__(self) -> None:
        super().__init__()
        self.image = qnn.QuantIdentity(
            act_quant=Uint8ActPerTensorFloat, bit_width=8, return_quant_tensor=True
        )
        self.conv = qnn.QuantConv2d(
            2, 8, 3, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=4
        )
        self.norm = nn.BatchNorm2d(8)
        self.relu = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.shared = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.depthwise = qnn.QuantConv2d(8, 8, 3, padding=1, groups=8, weight_bit_width=3)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = qnn.QuantLinear(8, 5, bias=True, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.pool(self.relu(self.norm(self.conv(self.image(x))))))
        x = x + self.shared(self.depthwise(x))
        return self.linear(self.average(x).flatten(1))


def trained_statistics(model: nn.Module, shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    """Batch norm with statistics of random images, gammas of both signs, random shifts."""
    generator = torch.Generator().manual_seed(seed)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(4, *shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(-1.0, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
    return model.eval()


def export(model: nn.Module, path: Path, shape: tuple[int, ...], dynamo: bool) -> Path:
    export_qonnx(model, args=torch.rand(1, *shape), export_path=str(path), dynamo=dynamo)
    return path


def torch_labels(model: nn.Module, batch: NDArray[np.float32]) -> NDArray[np.int64]:
    with torch.no_grad():
        logits = model(torch.from_numpy(batch))
    return np.asarray(getattr(logits, "value", logits).argmax(dim=1).numpy())


@pytest.mark.slow  # lowers large networks
@pytest.mark.parametrize("dynamo", [False, True])
def test_both_exporters(tmp_path: Path, dynamo: bool) -> None:
    torch.manual_seed(0)
    model = trained_statistics(Residual(), SHAPE)
    path = export(model, tmp_path / "model.onnx", SHAPE, dynamo)
    batch = images(SHAPE, count=12)
    network = assert_equivalent(load_model(path), batch)
    assert np.array_equal(network.predict(batch).argmax(axis=1), torch_labels(model, batch))
    modules = [layer.source for layer in network.layers if layer.op == "Conv"]
    assert "conv" in modules[0]
    assert "depthwise" in modules[1]


@pytest.mark.parametrize("dynamo", [False, True])
def test_power_of_two_scales_without_batch_norm_tie_exactly(tmp_path: Path, dynamo: bool) -> None:
    torch.manual_seed(1)
    fixed = {"weight_quant": Int8WeightPerTensorFixedPoint, "weight_bit_width": 4}
    model = nn.Sequential(
        qnn.QuantIdentity(
            act_quant=Int8ActPerTensorFixedPoint, bit_width=5, return_quant_tensor=True
        ),
        qnn.QuantConv2d(2, 6, 3, bias=True, bias_quant=Int8Bias, **fixed),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=3, return_quant_tensor=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(96, 5, bias=True, bias_quant=Int8Bias, **fixed),
    )
    model = trained_statistics(model, SHAPE)
    path = export(model, tmp_path / "model.onnx", SHAPE, dynamo)
    scale = float(lower(path).input.scale.max())
    # images exactly between two input codes, and on them
    batch = np.random.default_rng(0).integers(0, int(2 / scale) + 1, (40, *SHAPE)) * (scale / 2)
    batch = batch.astype(np.float32)
    assert (batch / scale % 1 == 0.5).any()
    network = assert_equivalent(load_model(path), batch, settled=False, labels=False)
    accumulators, threshold = network.run(batch)[network.layers[0].output], network.layers[1]
    conv = network.layers[0]
    value = (accumulators * conv.scale + conv.bias) / threshold.scale
    assert (value % 1 == 0.5).sum() > 50
