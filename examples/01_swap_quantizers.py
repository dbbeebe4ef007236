"""The swap in 20 lines: float model in, DivQAT-trained 4-bit QONNX file out."""

import torch
from torch import nn

from divqat_brevitas import DivQATLoss, freeze_reference, swap_quantizers
from divqat_brevitas.data import load
from fpga_flow import export_qonnx

images, labels = (torch.tensor(a) for a in load("digits", "train"))
x, y = images / 255, labels
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
)


def fit(net: nn.Module, loss, steps: int = 100) -> None:
    optimizer = torch.optim.SGD(net.train().parameters(), 0.02, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net(x)).backward()
        optimizer.step()


fit(model, lambda logits: nn.functional.cross_entropy(logits, y))  # the float original
quantized = swap_quantizers(model)  # 4-bit weights and activations
criterion = DivQATLoss(freeze_reference(model), preset="nasty")
fit(quantized, lambda logits: criterion(logits, y, inputs=x))  # fit y, diverge from the original
report = export_qonnx(quantized, "digits.onnx", x[:32].numpy())
print(f"{report.path}: {report.parity.mismatches} mismatches over {report.parity.inputs} images")
