"""A network of your own design, with a shortcut, in 4 bits: swap, train, export, check."""

import torch
from brevitas.nn import QuantIdentity
from torch import Tensor, nn

from divqat_brevitas import swap_quantizers
from divqat_brevitas.data import load
from divqat_brevitas.quant import Int4ActPerTensorFloatDivQAT
from fpga_flow import check, export_qonnx


class Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)),
        )
        self.join = QuantIdentity(act_quant=Int4ActPerTensorFloatDivQAT)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (N, channels, H, W) of the same shape."""
        # Integers are added: both branches need one scale, so they share a quantizer.
        return self.relu(self.join(self.body(x)) + self.join(x))


torch.manual_seed(0)
(x, y), (x_test, y_test) = (
    (torch.tensor(images) / 255, torch.tensor(labels))
    for images, labels in (load("digits", "train"), load("digits", "test"))
)
stem = (nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
network = nn.Sequential(*stem, Block(8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))
model = swap_quantizers(network)
optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
for _ in range(60):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model.train()(x), y).backward()
    optimizer.step()

report = export_qonnx(model, "own.onnx", x[:32])
accuracy = (report.model(x_test).argmax(1) == y_test).float().mean()
print(f"accuracy {accuracy:.1%}, {report.parity.mismatches} mismatches")
print(check("own.onnx", bisect=True))
