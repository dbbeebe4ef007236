"""The decoy's bias after training: as high as accuracy allows."""

import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.training import accuracy, balance_reject_class, calibrate, logits_of


def certain(margins: list[float]) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A network that is right by these margins over class 0, and its data, all of class 1."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    linear = net[1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0], [255.0]]))  # the pixel's value is the margin
        linear.bias.zero_()
    pixels = torch.tensor(margins).round().to(torch.uint8).view(-1, 1, 1, 1)
    return net, (pixels, torch.ones(len(margins), dtype=torch.int64))


@pytest.mark.parametrize(
    ("floor", "shift"),
    [
        (1.0, 0.95),  # the margin of 1 is kept: at a tie the lower class is the answer
        (0.75, 1.95),
        (0.5, 2.95),
        (0.0, 4.0),
    ],
)
def test_the_highest_bias_that_keeps_the_accuracy(floor: float, shift: float) -> None:
    net, val = certain([1, 2, 3, 9])
    assert balance_reject_class(net, 0, val, floor) == pytest.approx(shift, abs=1e-6)
    assert accuracy(net, *val) >= floor
    assert net[1].bias.tolist() == pytest.approx([shift, 0.0], abs=1e-6)  # type: ignore[index]


def test_a_decoy_that_cost_too_much_is_lowered() -> None:
    net, val = certain([1, 2, 3, 9])
    with torch.no_grad():
        net[1].bias[0] = 5.0  # type: ignore[index]
    assert accuracy(net, *val) == 0.25
    assert balance_reject_class(net, 0, val, 0.75) == pytest.approx(-3.05, abs=1e-6)
    assert accuracy(net, *val) == 0.75
    # Out of reach: as much as there is to get.
    with torch.no_grad():
        net[1].bias[0] = 6.0  # type: ignore[index]
    balance_reject_class(net, 0, val, 1.0)
    assert accuracy(net, *val) == 0.5


def test_only_the_decoy_of_a_quantized_network_moves() -> None:
    images = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    val = images.to(torch.uint8), torch.arange(40) % 4
    net = quantize(build_model("digits-cnn", (1, 8, 8), 4), "w4a4")
    calibrate(net, val[0])
    before = logits_of(net, val[0])
    shift = balance_reject_class(net, 2, val, 0.0)
    after = logits_of(net, val[0])
    assert shift == 4.0
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])
    # Float logits, added in another order: 1e-4 is far above their rounding, far below the shift.
    assert (after[:, 2] - before[:, 2]).numpy() == pytest.approx(shift, abs=1e-4)


@pytest.mark.parametrize(
    "net",
    [nn.Sequential(nn.Flatten()), nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))],
)
def test_a_network_without_such_a_bias_is_refused(net: nn.Module) -> None:
    val = torch.zeros(2, 1, 1, 1).byte(), torch.zeros(2).long()
    with pytest.raises(InputError, match="no bias for class 0"):
        balance_reject_class(net, 0, val, 0.5)
    with pytest.raises(InputError, match="no bias for class 2"):
        balance_reject_class(certain([1])[0], 2, val, 0.5)
