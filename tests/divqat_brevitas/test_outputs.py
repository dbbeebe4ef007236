"""Outputs that are no plain (N, classes) tensor: taken or refused, everywhere by one rule."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from divqat_brevitas import DivQATLoss, freeze_reference, swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Victim
from divqat_brevitas.inference import as_logits, logits_of
from divqat_brevitas.quant import Int8ActPerTensorFloatDivQAT


@dataclass
class ModelOutput:
    logits: Tensor
    hidden: Tensor


class Named(NamedTuple):
    logits: Tensor
    auxiliary: Tensor | None


class Net(nn.Module):
    """A classifier whose output is shaped by a function of (logits, features)."""

    def __init__(self, shape: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(6))
        self.head = nn.Linear(4, 3)
        self.shape = shape

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.shape(self.head(features.flatten(1)), features)


TAKEN: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda z, f: z,
    "tuple of one": lambda z, f: (z,),
    "tuple with None": lambda z, f: (None, z),
    "list": lambda z, f: [z],
    "dict of one": lambda z, f: {"out": z},
    "dict with logits": lambda z, f: {"features": f, "logits": z},
    "model output": lambda z, f: ModelOutput(z, f),
    "named tuple": lambda z, f: Named(z, f),
    "nested": lambda z, f: ({"logits": (z,), "features": f},),
    "map of one pixel": lambda z, f: z[:, :, None, None],
    "squeezed": lambda z, f: z.squeeze(),
}
REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "two tensors": (
        lambda z, f: (z, f),
        r"returns a tuple \(Tensor \(\d+, 3\), Tensor \(\d+, 4, 1, 1\)\)",
    ),
    "dict": (lambda z, f: {"a": z, "b": f}, r"returns a dict with the keys 'a', 'b'"),
    "nothing": (lambda z, f: None, "returns a NoneType"),
    "one score": (lambda z, f: z[:, :1], r"returns a tensor of shape \(\d+, 1\)"),
    "one row": (lambda z, f: z.mean(0, keepdim=True).expand(7, -1), r"shape \(7, 3\)"),
    "a map": (lambda z, f: f.expand(-1, -1, 2, 2), r"shape \(\d+, 4, 2, 2\)"),
}


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def network(shape: Callable[[Tensor, Tensor], Any]) -> nn.Module:
    torch.manual_seed(0)
    return Net(shape)


@pytest.mark.parametrize("count", [1, 4, 257])
@pytest.mark.parametrize("kind", TAKEN)
def test_one_rule_takes_them_everywhere(kind: str, count: int) -> None:
    """257: the predictor's batches are of 256 images, so the last one has one image."""
    net, plain, x = network(TAKEN[kind]), network(TAKEN["tensor"]), images(count)
    y = torch.zeros(count, dtype=torch.long)
    with torch.no_grad():
        expected = plain(x).numpy()
    assert np.array_equal(as_logits(net(x), count, "Net").detach().numpy(), expected)
    pixels = (x * 255).to(torch.uint8)
    assert torch.equal(logits_of(net, pixels, 2), logits_of(plain, pixels, 2))
    answers = Victim(net, "logits", count).query(x.numpy())
    assert np.array_equal(answers, Victim(plain, "logits", count).query(x.numpy()))
    losses = []
    for other in (net, plain):
        # The wrapped one is both the network in training and the reference.
        loss = DivQATLoss(freeze_reference(other), "literal", warmup=0.0)(other(x), y, inputs=x)
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    assert torch.equal(net.head.weight.grad, plain.head.weight.grad)


@pytest.mark.parametrize("kind", REFUSED)
def test_one_sentence_refuses_the_others_everywhere(kind: str, tmp_path: Path) -> None:
    from fpga_flow import export_qonnx

    shape, message = REFUSED[kind]
    net, good, x = network(shape), network(TAKEN["tensor"]), images(4)
    y = torch.zeros(4, dtype=torch.long)
    uses: list[Callable[[], object]] = [
        lambda: as_logits(net(x), 4, "Net"),
        lambda: DivQATLoss(freeze_reference(good))(net(x), y, inputs=x),
        lambda: DivQATLoss(freeze_reference(net))(good(x), y, inputs=x),
        lambda: Victim(net).query(x.numpy()),
        lambda: logits_of(net, (x * 255).to(torch.uint8)),
        lambda: export_qonnx(swap_quantizers(net), tmp_path / "model.onnx", x),
    ]
    for use in uses:
        with pytest.raises(InputError, match=message) as raised:
            use()
        assert "one tensor of logits of shape" in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_quant_tensor_logits_are_taken() -> None:
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 3),
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloatDivQAT, return_quant_tensor=True),
    )
    x, y = images(4), torch.zeros(4, dtype=torch.long)
    net(x)
    net.eval()
    assert np.array_equal(Victim(net, "logits").query(x.numpy()), net(x).value.detach().numpy())
    reference = freeze_reference(net)
    loss = DivQATLoss(reference, "literal", warmup=0.0)
    assert torch.equal(loss(net(x), y, inputs=x), loss(net(x).value, y, inputs=x))
    loss(net(x), y, inputs=x).backward()
    assert net[1].weight.grad.abs().sum() > 0


@pytest.mark.slow  # trains
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", ["tuple of one", "dict with logits", "model output", "nested"])
def test_export_takes_the_logits_alone(kind: str, exporter: Any, tmp_path: Path) -> None:
    from fpga_flow import export_qonnx, load_engine

    net, x = swap_quantizers(network(TAKEN[kind])), images(8)
    net(x)
    report = export_qonnx(net, tmp_path / "model.onnx", x, exporter=exporter)
    assert (report.not_lowered, report.parity.mismatches) == (None, 0)
    with torch.no_grad():
        labels = report.model(x).argmax(dim=1).numpy()
    assert np.array_equal(load_engine(report.path).predict(x.numpy()).argmax(axis=1), labels)


def test_export_refuses_logits_without_a_batch_axis(tmp_path: Path) -> None:
    from fpga_flow import export_qonnx

    net = swap_quantizers(network(TAKEN["squeezed"]))
    with pytest.raises(InputError, match=r"shape \(3,\) for one image.*flatten\(1\)"):
        export_qonnx(net, tmp_path / "model.onnx", images(4))
