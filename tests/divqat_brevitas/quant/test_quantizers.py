"""The quantizers as a Brevitas user meets them."""

import copy
import itertools
import math
from typing import Any
from unittest import mock

import brevitas.nn as qnn
import pytest
import torch
from brevitas.core.function_wrapper import Identity
from brevitas.core.quant import IntQuant
from brevitas.quant import binary, fixed_point, scaled_int
from torch import Tensor, nn

from divqat_brevitas import quant, swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.quant import learned_scale
from divqat_brevitas.quant.fused import Grid, fused_int_quant
from divqat_brevitas.quant.learned_scale import LearnedScaleIntQuant

BITS = (2, 3, 4, 8)
WEIGHTS = [
    (f"Int{b}Weight{per}{scale}DivQAT", f"Int8Weight{per}{scale}", b)
    for b, per, scale in itertools.product(
        BITS, ("PerTensor", "PerChannel"), ("Float", "FixedPoint")
    )
]
ACTS = [
    (f"{sign}{b}ActPerTensor{scale}DivQAT", f"{sign}8ActPerTensor{scale}", b)
    for b, sign, scale in itertools.product(BITS, ("Int", "Uint"), ("Float", "FixedPoint"))
]


def stock(name: str) -> Any:
    return getattr(fixed_point if "FixedPoint" in name else scaled_int, name)


def value(x: Any) -> Tensor:
    return x.value if hasattr(x, "value") else x


def conv(weight_quant: Any, **kwargs: Any) -> Any:
    return qnn.QuantConv2d(3, 8, 3, bias=False, weight_quant=weight_quant, **kwargs)


def bits_of(x: Tensor) -> Tensor:
    """The raw bits, so that even the sign of zero counts."""
    return x.contiguous().view(torch.int32)


@pytest.mark.parametrize(("name", "stock_name", "bits"), WEIGHTS)
def test_weights_start_bit_identical_to_stock(name: str, stock_name: str, bits: int) -> None:
    ours = conv(getattr(quant, name))
    theirs = conv(stock(stock_name), weight_bit_width=bits)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    a, b = ours.quant_weight(), theirs.quant_weight()
    assert torch.equal(bits_of(a.value), bits_of(b.value))
    assert torch.equal(bits_of(a.scale), bits_of(b.scale))
    assert int(a.bit_width) == bits


@pytest.mark.parametrize(("name", "stock_name", "bits"), ACTS)
def test_activations_start_bit_identical_to_stock(name: str, stock_name: str, bits: int) -> None:
    ours = qnn.QuantIdentity(act_quant=getattr(quant, name))
    theirs = qnn.QuantIdentity(act_quant=stock(stock_name), bit_width=bits)
    for _ in range(3):  # statistics are collected in training
        x = torch.randn(16, 5, 7)
        assert torch.equal(bits_of(ours(x)), bits_of(theirs(x)))
    ours.eval(), theirs.eval()
    assert torch.equal(bits_of(ours(x)), bits_of(theirs(x)))


@pytest.mark.parametrize(("name", "stock_name", "bits"), WEIGHTS)
def test_weight_gradient_is_stocks_and_the_scale_learns(
    name: str, stock_name: str, bits: int
) -> None:
    ours = conv(getattr(quant, name))
    theirs = conv(
        stock(stock_name), weight_bit_width=bits, weight_scaling_impl_type="parameter_from_stats"
    )
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    x, pull = torch.randn(2, 3, 6, 6), torch.randn(2, 8, 4, 4)
    for layer in (ours, theirs):
        (layer(x) * pull).sum().backward()
    assert torch.equal(ours.weight.grad, theirs.weight.grad)
    (scale,) = [p for n, p in ours.named_parameters() if n.endswith("scaling_impl.value")]
    assert scale.grad is not None
    assert scale.grad.abs().min() > 0
    before = ours.quant_weight().scale.clone()
    with torch.no_grad():
        scale -= 0.5 * scale.abs().clamp(min=2)  # a step large enough for a power of two
    assert not torch.equal(ours.quant_weight().scale, before)


BINARY = [
    (per, scale, f"SignedBinaryWeight{per}{scale}DivQAT")
    for per, scale in itertools.product(("PerTensor", "PerChannel"), ("Float", "FixedPoint"))
]


@pytest.mark.parametrize(("per", "scale", "name"), BINARY)
def test_one_bit_weights_are_signs_scaled_by_their_mean_size(
    per: str, scale: str, name: str
) -> None:
    layer = conv(getattr(quant, name))
    with torch.no_grad():
        layer.weight[0, 0, 0] = torch.tensor([0.0, -0.0, 3.0])
    weights = layer.eval().quant_weight()
    dims = (1, 2, 3) if per == "PerChannel" else (0, 1, 2, 3)
    means = layer.weight.abs().mean(dims, keepdim=True)
    if scale == "FixedPoint":
        means = 2 ** means.log2().ceil()
    # The mean is a float32 sum, whose order is not ours.
    torch.testing.assert_close(weights.scale.expand_as(means), means, rtol=1e-6, atol=0)
    assert torch.equal(weights.int(), torch.where(layer.weight >= 0, 1, -1))
    assert int(weights.bit_width) == 1


def test_one_bit_weights_stay_within_1_and_turn_at_the_bound() -> None:
    layer = conv(quant.SignedBinaryWeightPerTensorFloatDivQAT)
    with torch.no_grad():
        layer.weight *= 20
    pull = torch.randn_like(layer.weight)
    weights = layer.quant_weight()
    (weights.value * pull).sum().backward()
    assert layer.weight.abs().max() == 1
    # Straight through, and by way of the mean.
    signs = weights.int()
    expected = pull + (pull * signs).mean() * layer.weight.sign()
    torch.testing.assert_close(layer.weight.grad, expected)


def test_one_bit_activations_are_stocks() -> None:
    ours = qnn.QuantIdentity(act_quant=quant.SignedBinaryActPerTensorConstDivQAT)
    theirs = qnn.QuantIdentity(act_quant=binary.SignedBinaryActPerTensorConst)
    x, pull = torch.randn(16, 5, 7) * 2, torch.randn(16, 5, 7)
    x[0, 0, :2] = torch.tensor([0.0, -0.0])
    gradients = []
    for layer in (ours, theirs):
        taken = x.clone().requires_grad_()
        (layer(taken) * pull).sum().backward()
        gradients.append(taken.grad)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(*gradients)


def test_one_bit_quantizers_are_integers_at_other_bit_widths() -> None:
    ours = conv(quant.SignedBinaryWeightPerChannelFloatDivQAT, weight_bit_width=4)
    int4 = conv(quant.Int4WeightPerChannelFloatDivQAT)
    int4.load_state_dict(ours.state_dict())
    assert torch.equal(ours.quant_weight().value, int4.quant_weight().value)
    act = qnn.QuantIdentity(act_quant=quant.SignedBinaryActPerTensorConstDivQAT, bit_width=4)
    other = qnn.QuantIdentity(act_quant=quant.Int4ActPerTensorFloatDivQAT)
    x = torch.randn(16, 5, 7)
    assert torch.equal(act(x), other(x))


def test_scale_gradient_is_lsq() -> None:
    """Against the formula of Esser et al. 2020, sec. 2.1 and 2.2, written out."""
    layer = conv(quant.Int3WeightPerTensorFloatDivQAT)
    layer.quant_weight()
    (v,) = [p for n, p in layer.named_parameters() if n.endswith("scaling_impl.value")]
    with torch.no_grad():
        v *= 0.4  # so that some weights clip
    pull = torch.randn_like(layer.weight)
    (layer.quant_weight().value * pull).sum().backward()
    s, q_max = v.detach() / 3, 3
    ratio = layer.weight.detach() / s
    inside = ratio.round().abs() <= q_max
    ds = torch.where(inside, ratio.round() - ratio, ratio.sign() * q_max)
    lsq = (pull * ds).sum() / (layer.weight.numel() * q_max) ** 0.5
    # v = q_max·s, so the same update of s needs q_max·lsq on v. Float32 sums differ in order.
    torch.testing.assert_close(v.grad, q_max * lsq, rtol=1e-4, atol=1e-5)


def log_gradient(scale: Tensor, of_scale: float, factor: float) -> Tensor:
    """The gradient of log2(scale) where the loss has the gradient ``of_scale`` in the scale."""
    v = scale.log2().requires_grad_()
    learned_scale.scale_gradient(2**v, torch.tensor(factor), log_domain=True).backward(
        torch.full_like(scale, of_scale)
    )
    assert v.grad is not None
    return v.grad


def test_the_gradient_of_a_logarithm_is_lsqs_up_to_the_scale_itself() -> None:
    """A step of v by r / ln 2 moves s by LSQ's step, to first order, while that is at most s."""
    scale = torch.tensor([0.25, 1.0, 8.0])
    # Float32: a logarithm, a power and their derivatives, a few units in the last place each.
    expected = -0.2 / scale / math.log(2)
    torch.testing.assert_close(log_gradient(scale, -2.0, 0.1), expected, rtol=1e-5, atol=0)
    # On both sides of r = 1 the gradient is the same: the two formulas meet.
    below, above = log_gradient(torch.tensor([0.200001, 0.199999]), 2.0, 0.1)
    torch.testing.assert_close(below, above, rtol=1e-4, atol=0)


def test_the_gradient_of_a_logarithm_is_finite_at_any_scale_and_reaches_the_target() -> None:
    scale = torch.logspace(-30, 30, 61)
    for of_scale in (0.0, 1e-30, 1.0, -1e30):
        gradient = log_gradient(scale, of_scale, 0.1)
        assert gradient.isfinite().all()
        assert (gradient * of_scale >= 0).all()
    # As many doublings as lie between the scale and LSQ's step, and the 1/ln 2 of r = 1.
    (doublings,) = log_gradient(torch.tensor([2.0**-40]), 2.0, 0.5)
    torch.testing.assert_close(doublings.item(), 40 + 1 / math.log(2), rtol=1e-5, atol=0)


def trained(net: nn.Module, rate: float = 0.05, steps: int = 60) -> list[float]:
    """Losses of plain gradient descent on one batch of 16 images."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(16, 3, 12, 12, generator=generator)
    y = torch.randint(0, 5, (16,), generator=generator)
    optimizer, losses = torch.optim.SGD(net.parameters(), rate), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dead", ["all rows", "one row", "none"])
@pytest.mark.parametrize("bits", [4, 8])
def test_power_of_two_training_stays_finite_and_learns(bits: int, dead: str) -> None:
    torch.manual_seed(1)
    features = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
    net = nn.Sequential(*features, nn.Flatten(), nn.Linear(600, 5))
    with torch.no_grad():
        net[4].weight[{"all rows": slice(None), "one row": slice(1), "none": slice(0)}[dead]] = 0
    swapped = swap_quantizers(
        net,
        weight=getattr(quant, f"Int{bits}WeightPerChannelFixedPointDivQAT"),
        act=quant.Uint4ActPerTensorFixedPointDivQAT,
    )
    losses = trained(swapped)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("per", ["PerTensor", "PerChannel"])
def test_a_dead_row_of_a_power_of_two_starts_at_an_ordinary_scale(per: str) -> None:
    layer = conv(getattr(quant, f"Int4Weight{per}FixedPointDivQAT"))
    with torch.no_grad():
        layer.weight[1:] = 0
        layer.weight[0] = 0.5
    weight = layer.quant_weight()
    assert weight.scale.unique().tolist() == [0.5 / 8]
    assert (weight.value[1:] == 0).all()
    empty = conv(getattr(quant, f"Int4Weight{per}FixedPointDivQAT"))
    nn.init.zeros_(empty.weight)
    # 27 values in a row: 1/sqrt(27) = 0.192, up to the next power of two.
    assert empty.quant_weight().scale.unique().tolist() == [0.25 / 8]


def test_misspelt_settings_are_refused_everywhere() -> None:
    class Misspelt(quant.Int4WeightPerChannelFloatDivQAT):  # type: ignore[misc]
        bitwidth = 3

    with pytest.raises(InputError, match="bit_width"):
        conv(Misspelt)
    with pytest.raises(InputError, match="bit_width"):
        qnn.QuantReLU(act_quant=quant.Uint4ActPerTensorFloatDivQAT, bitwidth=3)
    with pytest.raises(InputError, match="from 2 to 32"):
        conv(quant.Int4WeightPerChannelFloatDivQAT, weight_bit_width=1)
    with pytest.raises(InputError, match="from 1 to 32"):
        conv(quant.SignedBinaryWeightPerChannelFloatDivQAT, weight_bit_width=0)


def test_brevitas_overrides_work() -> None:
    layer = conv(
        quant.Int4WeightPerChannelFloatDivQAT,
        weight_bit_width=3,
        weight_narrow_range=False,
        weight_scaling_min_val=1e-3,
    )
    assert int(layer.quant_weight().bit_width) == 3
    layer = conv(quant.Int4WeightPerChannelFloatDivQAT, weight_scaling_per_output_channel=False)
    assert layer.quant_weight().scale.numel() == 1
    relu = qnn.QuantReLU(act_quant=quant.Uint4ActPerTensorFloatDivQAT, bit_width=2)
    assert len(relu(torch.rand(1000)).unique()) == 4

    class Named(quant.Int8WeightPerTensorFloatDivQAT):  # type: ignore[misc]
        bit_width = 5

    assert int(conv(Named).quant_weight().bit_width) == 5


def small_net() -> nn.Sequential:
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=quant.Uint8ImageDivQAT),
        conv(quant.Int4WeightPerChannelFloatDivQAT),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(act_quant=quant.Uint4ActPerTensorFixedPointDivQAT),
        nn.Flatten(),
        qnn.QuantLinear(
            8 * 16, 4, bias=True, weight_quant=quant.Int2WeightPerTensorFixedPointDivQAT
        ),
    )


@pytest.mark.parametrize("trained", [False, True])
def test_state_dict_loads_strictly(trained: bool) -> None:
    net, x = small_net(), torch.rand(4, 3, 6, 6)
    if trained:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).pow(2).sum().backward()
            optimizer.step()
    torch.manual_seed(1)
    other = small_net()
    if trained:
        other(x)
    other.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(other.eval()(x), net.eval()(x))


def test_survives_copies_modes_and_formats() -> None:
    net, x = small_net(), torch.rand(4, 3, 6, 6)
    net(x)
    net.eval()
    expected = net(x)
    assert torch.equal(copy.deepcopy(net)(x), expected)
    assert torch.equal(net.train().eval()(x), expected)
    # Another memory layout sums in another order: float noise before the last layer's output.
    layout = net.to(memory_format=torch.channels_last)(
        x.contiguous(memory_format=torch.channels_last)
    )
    torch.testing.assert_close(layout, expected, rtol=1e-5, atol=1e-5)
    assert copy.deepcopy(net).to(torch.float64)(x.double()).dtype == torch.float64
    twin = copy.deepcopy(net)
    twin(x).sum().backward()  # a copy trains on its own
    assert all(p.grad is None for p in net.parameters())


def test_bfloat16_autocast_matches_stock() -> None:
    ours = conv(quant.Int4WeightPerChannelFloatDivQAT)
    theirs = conv(scaled_int.Int8WeightPerChannelFloat, weight_bit_width=4)
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    x = torch.rand(2, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a, b = ours(x), theirs(x)
    assert a.dtype == torch.bfloat16
    assert torch.equal(a, b)
    a.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters())


def test_image_quantizer_keeps_every_pixel() -> None:
    pixels = torch.arange(256)
    layer = qnn.QuantIdentity(act_quant=quant.Uint8ImageDivQAT, return_quant_tensor=True)
    assert torch.equal(layer(pixels / 255).int(float_datatype=False), pixels.to(torch.uint8))


def test_divergence_gradient_reaches_the_grid() -> None:
    from divqat_brevitas import DivQATLoss, freeze_reference

    float_net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    net = swap_quantizers(float_net)
    x = torch.rand(8, 1, 8, 8)
    net(x)
    loss = DivQATLoss(freeze_reference(float_net), weight=1.0, ce_weight=0.0, warmup=0.0)
    loss(net(x), torch.zeros(8, dtype=torch.long), inputs=x).backward()
    scales = [p for n, p in net.named_parameters() if "weight_quant" in n]
    assert len(scales) == 2
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in scales)


def both_paths(
    x: Tensor, scale: Tensor, bits: int, *, signed: bool, narrow: bool, pull: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Values and gradients of x and the scale: fused, Brevitas' own."""
    results = []
    for kind in (LearnedScaleIntQuant, IntQuant):
        int_quant = kind(narrow_range=narrow, signed=signed, input_view_impl=Identity())
        a, s = x.clone().requires_grad_(), scale.clone().requires_grad_()
        fused = mock.patch.object(learned_scale, "scale_gradient", lambda scale, *_: scale)
        with fused:  # the gradient before LSQ's factor, which Brevitas does not have
            y = int_quant(s, torch.tensor(0.0), torch.tensor(float(bits)), a)
        (y * pull).sum().backward()
        results.append((y.detach(), a.grad, s.grad))
    return results


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scales", [(), (1, 4, 1, 1), (6, 1, 1, 1)])
@pytest.mark.parametrize(
    ("bits", "signed", "narrow"),
    [(2, True, True), (4, True, False), (4, False, False), (8, True, True)],
)
def test_the_fused_quantizer_is_brevitas_own(
    bits: int, signed: bool, narrow: bool, scales: tuple[int, ...], layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(bits)
    scale = torch.rand(scales, generator=generator) * 0.2 + 0.01
    span = 2.0**bits
    x = (torch.rand(6, 4, 8, 8, generator=generator) * 3 - 1.5) * span * scale
    # Whole and half codes as well, over all bounds, and both zeros: exact ties at s = 2**-3.
    ties = torch.arange(256).reshape(1, 4, 8, 8) * 0.5 - 64
    ties[0, 0, 0, :2] = torch.tensor([-0.0, 0.0])
    for x_, s_ in ((x, scale), (ties.repeat(6, 1, 1, 1) / 8, torch.full(scales, 0.125))):
        x_ = x_.contiguous(memory_format=layout)
        pull = torch.randn(x_.shape, generator=generator)
        ours, theirs = both_paths(x_, s_, bits, signed=signed, narrow=narrow, pull=pull)
        assert torch.equal(bits_of(ours[0]), bits_of(theirs[0]))
        assert torch.equal(bits_of(ours[1]), bits_of(theirs[1]))
        # Sums of thousands of float32 terms of both signs, in another order: the error is
        # relative to the terms, up to half of all codes times a gradient around 1.
        torch.testing.assert_close(ours[2], theirs[2], rtol=1e-4, atol=1e-4 * span)
        assert ours[0].is_contiguous(memory_format=layout)


def test_only_training_is_fused() -> None:
    layer, x = qnn.QuantIdentity(act_quant=quant.Uint4ActPerTensorFloatDivQAT), torch.rand(5, 7)
    with mock.patch.object(Grid, "quantize", side_effect=AssertionError):
        with pytest.raises(AssertionError):
            layer(x)
        layer.eval()(x)
        layer.train().to(torch.float64)(x.double())
        rounding = qnn.QuantIdentity(
            act_quant=quant.Uint4ActPerTensorFloatDivQAT, float_to_int_impl_type="floor"
        )
        rounding(x)


def test_the_fused_quantizer_lets_nan_through() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    out = fused_int_quant(x, torch.tensor(0.5), -7, 7)
    assert out.isnan().tolist() == [True, False, False, False]
    assert out[1:].tolist() == [3.5, -3.5, 1.0]


def test_the_fused_quantizer_refuses_second_derivatives() -> None:
    x, scale = torch.rand(3, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    out = fused_int_quant(x, scale, -7, 7).square().sum()
    (first,) = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
