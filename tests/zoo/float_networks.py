"""Small float networks in torchvision's style: what users bring, forward methods included."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divqat_brevitas import DivQATLoss, freeze_reference
from divqat_brevitas.inference import plain
from fpga_flow import export_qonnx
from fpga_flow.export import ExportReport
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.integer.engine import IntegerEngine


class BasicBlock(nn.Module):
    """A residual block; the sum is written in ``forward``, as torchvision does."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Two blocks, one of them with a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = BasicBlock(4, 4, 1), BasicBlock(4, 8, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, and add where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 2 * inputs
        self.use_res_connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """Three blocks, two of them with a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU6(inplace=True),
            InvertedResidual(4, 4, 1),
            InvertedResidual(4, 8, 2),
            InvertedResidual(8, 8, 1),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


def mobilenet_v1() -> nn.Sequential:
    """Depthwise-separable convolutions without sums."""

    def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        *separable(4, 6, 1),
        *separable(6, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def images(shape: tuple[int, ...], count: int = 8) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return pixels.astype(np.float32) / np.float32(255)


def trained(model: nn.Module, original: nn.Module, x: np.ndarray, steps: int = 2) -> nn.Module:
    """A few steps with DivQAT's loss against the frozen original."""
    criterion = DivQATLoss(freeze_reference(original), preset="nasty")
    optimizer = torch.optim.SGD(model.train().parameters(), 0.01)
    inputs = torch.from_numpy(x)
    labels = torch.arange(len(x)) % 10
    for _ in range(steps):
        optimizer.zero_grad()
        loss: Tensor = criterion(plain(model(inputs)), labels, inputs=inputs)
        assert torch.isfinite(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def exported(model: nn.Module, x: np.ndarray, path: Path, exporter: Any) -> ExportReport:
    """Exported through the gate; the integer engine equals torch, and QONNX integer by integer."""
    report = export_qonnx(model, path, x, exporter=exporter)
    assert report.not_lowered is None
    assert report.parity.mismatches == 0
    assert report.parity.unit == "accumulators"
    integer, reference = IntegerEngine(path), QonnxEngine(path, batch=len(x))
    ours, theirs = integer.accumulators(x), reference.accumulators(x)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name
    with torch.no_grad():
        logits = plain(report.model(torch.from_numpy(x))).numpy().reshape(len(x), -1)
    assert np.array_equal(integer.predict(x).argmax(1), logits.argmax(1))
    return report
