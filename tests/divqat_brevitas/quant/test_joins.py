"""Quantizers of the branches of a sum, and the scale that they share with a shortcut's codes."""

import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.models import quantize
from divqat_brevitas.models.resnet import ResidualArchitecture
from divqat_brevitas.training import calibrate


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize(("join", "factor"), [(5, 1), (6, 2), (8, 8)])
def test_an_identity_shortcut_passes_codes_unchanged(
    join: int, factor: int, power_of_two: bool
) -> None:
    net = nn.Sequential(*ResidualArchitecture((2,), (4,), 8, "small").layers(1, 3))
    quantized = quantize(net, "w4a4", join_bit_width=join, power_of_two=power_of_two)
    calibrate(quantized, torch.randint(0, 256, (64, 1, 8, 8)).byte())
    quantized.train()
    quantized(torch.rand(4, 1, 8, 8)).square().sum().backward()
    quantized.eval()
    for source, block in ((quantized[2], quantized[3]), (quantized[3].relu, quantized[4])):
        scale = source.act_quant.scale()
        assert torch.equal(block.join.act_quant.scale(), scale / factor)
        codes = torch.arange(16) * scale
        assert torch.equal(block.join(codes), codes)
        assert int(block.join.act_quant.bit_width()) == join
        shared = block.join.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl
        assert shared.value.grad.abs() > 0


def test_a_shared_scale_survives_its_file() -> None:
    net = nn.Sequential(*ResidualArchitecture((1,), (4,), 8, "small").layers(1, 3))
    first, second = (quantize(net, "w4a4", join_bit_width=6).eval() for _ in range(2))
    calibrate(first, torch.randint(0, 256, (64, 1, 8, 8)).byte())
    second.load_state_dict(first.state_dict())
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(first.eval()(x), second.eval()(x))


def test_what_holds_no_codes_of_the_shortcut_has_its_own_scale() -> None:
    net = nn.Sequential(*ResidualArchitecture((1,), (4,), 8, "small").layers(1, 3))
    narrow = quantize(net, "w4a4", join_bit_width=4)
    tensors = [
        q.act_quant.fused_activation_quant_proxy.tensor_quant for q in (narrow[2], narrow[3].join)
    ]
    assert tensors[0].scaling_impl is not tensors[1].scaling_impl
    with pytest.raises(InputError, match="join_bit_width=9: take 2 to 8"):
        quantize(net, "w4a4", join_bit_width=9)
