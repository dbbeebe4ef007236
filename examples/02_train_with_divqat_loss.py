"""One network trained twice in 4 bits, plainly and with DivQATLoss: accuracy, and divergence."""

import os

import torch
from torch import nn

from divqat_brevitas import DivQATLoss, freeze_reference, swap_quantizers
from divqat_brevitas.data import load

torch.manual_seed(0)
STEPS = int(os.environ.get("STEPS", "200"))
(x, y), (x_test, y_test) = (
    (torch.tensor(images) / 255, torch.tensor(labels))
    for images, labels in (load("digits", "train"), load("digits", "test"))
)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
)


def fit(net: nn.Module, loss) -> nn.Module:
    optimizer = torch.optim.SGD(net.train().parameters(), 0.02, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(net(x)).backward()
        optimizer.step()
    return net.eval()


cross_entropy = nn.CrossEntropyLoss()
fit(model, lambda logits: cross_entropy(logits, y))
criterion = DivQATLoss(freeze_reference(model), preset="nasty")  # the float network, frozen
networks = {
    "float": model,
    "qat": fit(swap_quantizers(model), lambda logits: cross_entropy(logits, y)),
    "divqat": fit(swap_quantizers(model), lambda logits: criterion(logits, y, inputs=x)),
}
with torch.no_grad():
    original = model(x_test).softmax(1)
    for name, network in networks.items():
        answers = network(x_test).softmax(1)
        accuracy = (answers.argmax(1) == y_test).float().mean()
        distance = (answers - original).abs().sum(1).mean()
        print(f"{name}: accuracy {accuracy:.1%}, l1 distance from float {distance:.3f}")
print("last loss:", {name: round(float(value), 3) for name, value in criterion.terms.items()})
