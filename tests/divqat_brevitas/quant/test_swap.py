"""Quantizers swapped into a network, and its first one fitted to the inputs."""

import copy
import warnings
from collections.abc import Callable

import brevitas.nn as qnn
import pytest
import torch
from brevitas.nn.quant_layer import QuantNonLinearActLayer
from torch import Tensor, nn
from torch.nn import functional as F

from divqat_brevitas import freeze_reference, swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.models.resnet import BasicBlock, ResidualArchitecture
from divqat_brevitas.quant import (
    InputRangeWarning,
    Int2WeightPerChannelFloatDivQAT,
    Int8WeightPerChannelFloatDivQAT,
    SignedBinaryActPerTensorConstDivQAT,
    Uint2ActPerTensorFloatDivQAT,
    Uint8ActPerTensorFloatDivQAT,
    Uint8ImageDivQAT,
)
from divqat_brevitas.quant.input_fit import InputFit, calibrate, first_quantizer_fit
from divqat_brevitas.quant.proxy import DivQATWeightQuantProxy
from divqat_brevitas.quant.scaled_input import scales_input
from divqat_brevitas.quant.swappable import Join


def float_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def test_float_model_is_carried_over() -> None:
    net = float_net()
    net(torch.rand(8, 1, 8, 8))  # moves the batch-norm statistics
    before = {k: v.clone() for k, v in net.state_dict().items()}
    swapped = swap_quantizers(net.eval())
    assert not swapped.training
    state = swapped.state_dict()
    for name, tensor in before.items():
        assert torch.equal(state[name], tensor), name
        assert torch.equal(net.state_dict()[name], tensor), name
    assert isinstance(swapped[4][0], qnn.QuantConv2d)
    assert (swapped[4][0].stride, swapped[4][0].groups) == ((2, 2), 2)
    assert isinstance(swapped[2], qnn.QuantReLU)
    assert swapped[0].input_quant.is_quant_enabled
    assert not swapped[6].input_quant.is_quant_enabled


def test_eight_bits_stay_close_to_float() -> None:
    net = float_net()
    x = torch.rand(32, 1, 8, 8)
    for _ in range(3):
        net(x)
    swapped = swap_quantizers(net, Int8WeightPerChannelFloatDivQAT, Uint8ActPerTensorFloatDivQAT)
    for module in swapped.modules():
        module.train("Batch" not in type(module).__name__)
    swapped(x)  # collects the activations' ranges
    error = (swapped.eval()(x) - net.eval()(x)).abs().max()
    assert error < 0.05 * net(x).abs().max()  # 8 bits: three roundings of about 1/256 of the range


def frozen_of(net: nn.Module) -> dict[str, bool]:
    return {name: not p.requires_grad for name, p in net.named_parameters()}


def test_frozen_layers_stay_frozen() -> None:
    net = float_net()
    net[0].requires_grad_(False)
    net[1].weight.requires_grad_(False)
    net[4][1].requires_grad_(False)
    net[6].bias.requires_grad_(False)
    before, swapped = frozen_of(net), swap_quantizers(net)
    after = frozen_of(swapped)
    assert {name: after[name] for name in before} == before
    # A frozen weight's scale is part of the frozen layer; the others' learn.
    scales = {name: frozen for name, frozen in after.items() if "weight_quant" in name}
    assert {name.split(".weight_quant")[0]: frozen for name, frozen in scales.items()} == {
        "0": True,
        "4.0": False,
        "6": False,
    }
    x, state = torch.rand(8, 1, 8, 8), copy.deepcopy(swapped[0].state_dict())
    optimizer = torch.optim.SGD(swapped.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        swapped(x).pow(2).sum().backward()
        optimizer.step()
    assert all(torch.equal(swapped[0].state_dict()[name], state[name]) for name in state)


def test_frozen_quantizers_stay_frozen() -> None:
    relu = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloatDivQAT)
    net = nn.Sequential(qnn.QuantConv2d(1, 4, 3), relu, nn.Flatten(), qnn.QuantLinear(144, 3))
    net[0].weight.requires_grad_(False)
    net[1].requires_grad_(False)
    frozen = frozen_of(swap_quantizers(net, act=Uint2ActPerTensorFloatDivQAT))
    assert {name for name, is_frozen in frozen.items() if is_frozen} == {
        "0.weight",
        "0.weight_quant.tensor_quant.scaling_impl.value",
        "1.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.value",
    }


def test_first_and_last_layers_and_filter() -> None:
    swapped = swap_quantizers(
        float_net(), Int2WeightPerChannelFloatDivQAT, first_bit_width=8, last_bit_width=4
    )
    widths = [
        int(m.quant_weight().bit_width)
        for m in swapped.modules()
        if isinstance(m, qnn.QuantConv2d | qnn.QuantLinear)
    ]
    assert widths == [8, 2, 4]
    signs = quantize(float_net(), "w1a1", first_bit_width=8, last_bit_width=4)
    weights = [m.quant_weight() for m in signs.modules() if hasattr(m, "quant_weight")]
    assert [int(weight.bit_width) for weight in weights] == [8, 1, 4]
    kept = swap_quantizers(float_net(), filter_fn=lambda name, _: not name.startswith("4"))
    assert type(kept[4][0]) is nn.Conv2d
    assert isinstance(kept[6], qnn.QuantLinear)


def test_trains_and_shared_modules_stay_shared() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU()
            self.again = self.relu
            self.head = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.again(self.conv(self.relu(self.conv(x)))).flatten(1))

    swapped = swap_quantizers(Shared())
    assert swapped.relu is swapped.again
    assert isinstance(swapped.relu, qnn.QuantReLU)
    swapped(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for n, p in swapped.named_parameters() if "weight" in n)


@pytest.mark.parametrize("name", ["CNV_1W1A", "CNV_1W2A", "CNV_2W2A", "LFC_1W1A"])
def test_brevitas_examples_are_swapped(name: str) -> None:
    from brevitas_examples.bnn_pynq.models import model_with_cfg

    net, _ = model_with_cfg(name, pretrained=False)
    swapped = swap_quantizers(net, Int2WeightPerChannelFloatDivQAT, Uint2ActPerTensorFloatDivQAT)
    layers = [m for m in swapped.modules() if isinstance(m, qnn.QuantConv2d | qnn.QuantLinear)]
    assert all(type(m.weight_quant) is DivQATWeightQuantProxy for m in layers)
    originals = [m for m in net.modules() if isinstance(m, qnn.QuantConv2d | qnn.QuantLinear)]
    for new, old in zip(layers, originals, strict=True):
        assert torch.equal(new.weight, old.weight)
        assert type(old.weight_quant) is not DivQATWeightQuantProxy
    x = torch.rand(4, *((3, 32, 32) if "CNV" in name else (1, 28, 28)))
    assert swapped.train()(x).shape == (4, 10)
    acts = [m for m in swapped.modules() if isinstance(m, qnn.QuantIdentity)]
    inputs = [m for m in net.modules() if isinstance(m, qnn.QuantIdentity)]
    assert int(acts[0].act_quant.bit_width()) == int(inputs[0].act_quant.bit_width())
    assert all(int(a.act_quant.bit_width()) == 2 and a.act_quant.is_signed for a in acts[1:])


def test_signs_take_the_place_of_relus() -> None:
    net = float_net()
    again = swap_quantizers(quantize(net, "w2a2"), act=SignedBinaryActPerTensorConstDivQAT)
    for signs in (quantize(net, "w1a1"), again):
        acts = [m for m in signs.modules() if isinstance(m, QuantNonLinearActLayer)]
        x = torch.tensor([-2.0, -0.0, 0.5])
        assert [act.eval()(x).tolist() for act in acts] == [[-1.0, 1.0, 1.0]] * len(acts) != []


def test_everything_unswappable_is_named_at_once() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gelu, self.norm = nn.Conv2d(1, 2, 3), nn.GELU(), nn.LayerNorm(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm(self.gelu(self.conv(x))))

    with pytest.raises(InputError, match=r"gelu \(GELU\).*norm \(LayerNorm\).*relu\(\)"):
        swap_quantizers(Odd())


def test_other_refusals() -> None:
    class MyConv(nn.Conv2d):
        pass

    with pytest.raises(InputError, match="subclass of Conv2d"):
        swap_quantizers(nn.Sequential(MyConv(1, 1, 1)))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(InputError, match="shares its weight"):
        swap_quantizers(tied)
    with pytest.raises(InputError, match="no layer to swap"):
        swap_quantizers(nn.Sequential(nn.ReLU()))
    with pytest.raises(InputError, match="Parametrized"):
        swap_quantizers(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))


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


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Net(nn.Module):
    def __init__(self, scaling: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scaling = scaling
        self.register_buffer("mean", MEAN.reshape(3, 1, 1))
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.last = nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(self.scaling(x)))
        if x.sum() > 1e9:  # no tracing beyond the first layer
            x = x / 2
        return self.last(x.flatten(1))


def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (64, 3, 8, 8), generator=generator).byte()


def fit(model: nn.Module, inputs: Tensor) -> InputFit:
    found = first_quantizer_fit(model, inputs)
    assert found is not None
    return found


NORMALISING = [
    lambda x: (x - MEAN.reshape(3, 1, 1)) / STD.reshape(3, 1, 1),
    lambda x: x.sub(0.5).div(0.25),
    lambda x: 2 * x - 1,
    nn.BatchNorm2d(3),
    lambda x: F.batch_norm(x, MEAN, STD * STD),
    lambda x: torch.log(x + 1),
    lambda x: (x / 255 - 0.5) / 0.25,
]
PLAIN = [
    lambda x: x,
    lambda x: x.float() / 255,
    lambda x: x * (1 / 255),
    lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    lambda x: x.reshape(x.size(0), 3, 8, 8),
    nn.Identity(),
]


@pytest.mark.parametrize("scaling", NORMALISING)
def test_scaling_before_the_first_layer_is_seen(scaling: Callable[[Tensor], Tensor]) -> None:
    assert scales_input(Net(scaling), "conv")


@pytest.mark.parametrize("scaling", PLAIN)
def test_pixels_that_stay_pixels_keep_the_image_quantizer(
    scaling: Callable[[Tensor], Tensor],
) -> None:
    assert not scales_input(Net(scaling), "conv")


@pytest.mark.parametrize("scaling", NORMALISING[:4])
def test_the_swaps_first_quantizer_holds_what_arrives(scaling: Callable[[Tensor], Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        swapped = swap_quantizers(Net(scaling).eval())
        calibrate(swapped, pixels())
    measured = fit(swapped, pixels() / 255)
    assert measured.cut < 0.001  # the scale comes from a percentile of 99.999 %
    assert measured.seen[1] - measured.seen[0] > 0.3 * (measured.held[1] - measured.held[0])


def test_ordinary_images_never_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        swapped = swap_quantizers(Net(nn.Identity()))
        for value in (0, 255):
            calibrate(swapped, torch.full((4, 3, 8, 8), value).byte())
        calibrate(swapped, pixels())
        swapped.train()(pixels() / 255)
    assert fit(swapped, pixels() / 255).cut == 0


def test_standardised_images_warn_at_calibration_and_in_the_first_batch() -> None:
    """Not only at the export, behind the training."""
    standardised = (pixels() / 255 - 0.5) / 0.25
    swapped = swap_quantizers(Net(nn.Identity()))
    with pytest.warns(InputRangeWarning, match=r"from -2 to 2, but holds 0 to 1: .*are cut"):
        calibrate(swapped, standardised)
    swapped.train()
    with pytest.warns(InputRangeWarning, match=r"\d\d\.\d% of them are cut.*input_act"):
        swapped(standardised)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        swapped(standardised)  # once is enough


def test_less_than_one_percent_is_no_matter() -> None:
    swapped = swap_quantizers(Net(nn.Identity()), input_act=Uint8ImageDivQAT)
    inputs = pixels() / 255
    count = inputs.numel()
    inputs.reshape(-1)[: count // 100] = 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputRangeWarning)
        calibrate(swapped, inputs)
    inputs.reshape(-1)[: count // 100 + 1] = 3
    with pytest.warns(InputRangeWarning, match="to 3, .*1.0% of them"):
        calibrate(swapped, inputs)


# Quantizers of the branches of a sum: the scale that they share with a shortcut's codes.
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


_PROXY = "act_quant.fused_activation_quant_proxy"


def test_a_loaded_scale_stays_shared_and_the_same_parameter() -> None:
    net = nn.Sequential(*ResidualArchitecture((1,), (4,), 8, "small").layers(1, 3))
    first = quantize(net, "w4a4", join_bit_width=6)
    calibrate(first, torch.randint(0, 256, (64, 1, 8, 8)).byte())
    copied = copy.deepcopy(first)
    state = {name: value + 1 for name, value in first.state_dict().items()}
    for model, other in ((first, copied), (copied, first)):
        source, join = (
            q.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.value
            for q in (model[2], model[3].join)
        )
        elsewhere = other[2].act_quant.scale()
        model.load_state_dict(state)
        found = dict(model.named_parameters(remove_duplicate=False)).items()
        scales = [p for name, p in found if name.startswith("2.") or ".join." in name]
        assert torch.equal(source, state[f"2.{_PROXY}.tensor_quant.scaling_impl.value"])
        assert [p is source for p in [join, *scales]] == [True, True, True]
        assert torch.equal(other[2].act_quant.scale(), elsewhere)


def test_what_holds_no_codes_of_the_shortcut_has_its_own_scale() -> None:
    net = nn.Sequential(*ResidualArchitecture((1,), (4,), 8, "small").layers(1, 3))
    narrow = quantize(net, "w4a4", join_bit_width=4)
    tensors = [
        q.act_quant.fused_activation_quant_proxy.tensor_quant for q in (narrow[2], narrow[3].join)
    ]
    assert tensors[0].scaling_impl is not tensors[1].scaling_impl
    with pytest.raises(InputError, match="join_bit_width=9: take 2 to 8"):
        quantize(net, "w4a4", join_bit_width=9)
