"""Residual networks: what the swap makes of a sum's branches."""

import brevitas.nn as qnn
import pytest
import torch
from torch import nn

from divqat_brevitas import freeze_reference, swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import build_surrogate
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.models.resnet import BasicBlock, ResidualArchitecture
from divqat_brevitas.quant.swappable import Join
from divqat_brevitas.training import calibrate


def test_one_signed_quantizer_for_both_branches() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(BasicBlock(3, 8, 2), BasicBlock(8, 8, 1), nn.Flatten(), nn.Linear(128, 5))
    swapped = quantize(net, "w4a4").eval()
    calibrate(swapped, torch.randint(0, 256, (64, 3, 8, 8)).byte())
    seen: list[torch.Tensor] = []
    for block in swapped[:2]:
        assert isinstance(block.join, qnn.QuantIdentity)
        assert block.join.act_quant.is_signed
        assert not block.relu.act_quant.is_signed
        block.join.register_forward_hook(lambda module, inputs, out: seen.append(out.detach()))
    swapped(torch.rand(16, 3, 8, 8))
    assert len(seen) == 4
    for block, branches in zip(swapped[:2], (seen[:2], seen[2:]), strict=True):
        scale = block.join.act_quant.scale().detach()
        for branch in branches:
            codes = branch / scale
            torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
            assert codes.min() > -8.5
            assert codes.max() < 7.5
    assert min(branch.min() for branch in seen) < 0


def test_a_float_join_does_nothing_and_float_networks_stay_usable() -> None:
    x = torch.randn(2, 3)
    assert Join()(x) is x
    net = build_model("resnet-18", (1, 8, 8), 4, seed=1)
    frozen = freeze_reference(net)
    assert frozen(torch.rand(2, 1, 8, 8)).shape == (2, 4)
    with pytest.raises(InputError, match="at least 8x8"):
        build_model("resnet-18", (1, 7, 7), 4)


def test_a_brevitas_residual_network_swaps_again_and_stays_signed() -> None:
    net = nn.Sequential(*ResidualArchitecture((1, 1), (4, 8), 8, "small").layers(1, 3))
    again = swap_quantizers(quantize(net, "w4a4"))
    assert again[3].join.act_quant.is_signed


@pytest.mark.parametrize(("name", "millions"), [("resnet-18", 11.17), ("resnet-34", 21.28)])
def test_surrogates_of_the_papers(name: str, millions: float) -> None:
    net = build_surrogate(name, (3, 8, 8), 10, seed=0)
    # 11.69 and 21.80 for ImageNet: less 0.51 of its 1000 classes and 0.008 of a 7x7 stem.
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions
