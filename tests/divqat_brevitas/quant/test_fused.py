"""The fused quantizer: blocks, the ReLU inside it, what is kept for the backward pass."""

from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant.scaled_int import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from torch import Tensor, nn

from divqat_brevitas import swap_quantizers
from divqat_brevitas.quant import (
    Int4ActPerTensorFloatDivQAT,
    Int4WeightPerChannelFixedPointDivQAT,
    Int4WeightPerChannelFloatDivQAT,
    Uint4ActPerTensorFixedPointDivQAT,
    Uint4ActPerTensorFloatDivQAT,
    Uint8ImageDivQAT,
    fused,
)
from divqat_brevitas.quant.fused import fused_int_quant, requantizing
from divqat_brevitas.quant.learned_scale import LearnedScaleIntQuant
from divqat_brevitas.quant.training_step import LearnedIntQuant
from divqat_brevitas.training import calibrate
from divqat_brevitas.training.kernels import channels_last, fast_kernels

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
LAYOUTS = {
    "plain": lambda x: x.contiguous(),
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "gaps": lambda x: torch.cat([x, x], dim=3)[..., : x.shape[3]],
    "expanded": lambda x: x[:1].expand(x.shape),
}


def bits_of(x: Tensor) -> Tensor:
    """The raw bits, so that even the sign of zero counts."""
    return x.contiguous().view(torch.int32)


def values(seed: int = 0) -> Tensor:
    """Random values, exact ties at a scale of 1/8, both zeros, values beyond all bounds."""
    x = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(seed))
    ties = torch.arange(-50, 50) / 16
    x[0, 0] = ties.reshape(10, 10)
    x[1, 1, 0, :5] = torch.tensor([-0.0, 0.0, 1e30, -1e30, -1e-30])
    return x


def passes(x: Tensor, scale: float, function: Any) -> tuple[Tensor, ...]:
    """Values and gradients of x and the scale."""
    x, s = x.detach().requires_grad_(), torch.tensor(scale, requires_grad=True, device=x.device)
    y = function(x, s)
    pull = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.device)
    pull = torch.empty_like(y).copy_(pull)
    torch.autograd.backward(y, pull)
    assert x.grad is not None
    assert s.grad is not None
    return y.detach(), x.grad, s.grad


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("low", "high"), [(-7, 7), (0, 15)])
@pytest.mark.parametrize("scale", [0.125, 0.237])
def test_blocks_change_no_bit(
    layout: str, low: int, high: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = LAYOUTS[layout](values())
    compiled = passes(x, scale, lambda a, s: fused_int_quant(a, s, low, high))
    monkeypatch.setattr(fused, "library", lambda: None)
    whole = passes(x, scale, lambda a, s: fused_int_quant(a, s, low, high))
    monkeypatch.setattr(fused, "BLOCK", 7)
    blocks = passes(x, scale, lambda a, s: fused_int_quant(a, s, low, high))
    assert all(torch.equal(bits_of(a), bits_of(b)) for a, b in zip(whole, blocks, strict=True))
    assert all(
        torch.equal(bits_of(a), bits_of(b)) for a, b in zip(whole[:2], compiled, strict=False)
    )
    # Sums of 1,200 float32 terms up to 15 in another order.
    torch.testing.assert_close(compiled[2], whole[2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("block", [7, 2**16, None])
@pytest.mark.parametrize("scale", [0.125, 0.237])
def test_a_relu_inside_is_a_relu_before_bit_for_bit(
    block: int | None, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block is not None:  # else the compiled pass
        monkeypatch.setattr(fused, "BLOCK", block)
        monkeypatch.setattr(fused, "library", lambda: None)
    apart = passes(values(), scale, lambda a, s: fused_int_quant(a.relu(), s, 0, 15))
    inside = passes(values(), scale, lambda a, s: fused_int_quant(a, s, 0, 15, rectify=True))
    assert torch.equal(bits_of(apart[0]), bits_of(inside[0]))
    assert torch.equal(apart[1], inside[1])
    assert torch.equal(apart[2], inside[2])
    nan = fused_int_quant(torch.tensor([float("nan")]), torch.tensor(0.5), 0, 3, rectify=True)
    assert nan.isnan().all()


def float_network() -> nn.Sequential:
    """Convolutions with and without a pool behind, as the zoo's networks have them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 8 * 8, 10),
        )  # fmt: skip


def images(count: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)


def gradients(network: nn.Module, precision: str = "float32", *, fast: bool) -> dict[str, Tensor]:
    """Of every parameter, in the trainer's kernels or in plain ones (channels-last both)."""
    x = channels_last(images() / 255)
    for p in network.parameters():
        p.grad = None
    network.train()
    if fast:
        with fast_kernels(network, precision):
            loss = network(x).logsumexp(1).mean()
    else:
        loss = network(x).logsumexp(1).mean()
    loss.backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def test_weights_and_activations_get_the_gradients_of_the_stock_quantizers() -> None:
    """At equal scales, through a whole network, in the kernels that the trainer uses."""
    ours = swap_quantizers(float_network())
    calibrate(ours, images())
    stock = swap_quantizers(
        float_network(),
        # By default the stock scale is the weights' maximum, at every step anew: a parameter here,
        # as ours is, so that both can be set equal.
        weight=Int8WeightPerChannelFloat.let(bit_width=4, scaling_impl_type="parameter_from_stats"),
        act=Uint8ActPerTensorFloat.let(bit_width=4),
    )
    calibrate(stock, images())
    stock.load_state_dict(ours.state_dict(), strict=True)
    found, expected = gradients(ours, fast=True), gradients(stock, fast=True)
    assert set(found) == set(expected)
    scales = {name for name in found if name.endswith("scaling_impl.value")}
    assert len(scales) == 5
    for name in set(found) - scales:
        assert torch.equal(found[name], expected[name]), name
    assert all(found[name].abs().sum() > 0 for name in found)


def test_fast_kernels_change_no_gradient_and_leave_no_trace() -> None:
    network = swap_quantizers(float_network())
    calibrate(network, images())
    before = {name: type(m) for name, m in network.named_modules()}
    plain, fast = gradients(network, fast=False), gradients(network, fast=True)
    assert set(plain) == set(fast)
    assert all(torch.equal(plain[name], fast[name]) for name in plain)
    with pytest.raises(RuntimeError, match="stop"), fast_kernels(network):
        raise RuntimeError("stop")
    assert {name: type(m) for name, m in network.named_modules()} == before


def linear(weight_quant: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return qnn.QuantLinear(64, 9, bias=False, weight_quant=weight_quant)


ONES = {
    "relu": lambda: qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT),
    "power-of-two": lambda: qnn.QuantReLU(act_quant=Uint4ActPerTensorFixedPointDivQAT),
    "signed": lambda: qnn.QuantIdentity(act_quant=Int4ActPerTensorFloatDivQAT),
    "signed-relu": lambda: qnn.QuantReLU(act_quant=Int4ActPerTensorFloatDivQAT),
    "image": lambda: qnn.QuantIdentity(act_quant=Uint8ImageDivQAT),
    "weight": lambda: linear(Int4WeightPerChannelFloatDivQAT),
    "weight-power-of-two": lambda: linear(Int4WeightPerChannelFixedPointDivQAT),
}


def training_steps(
    layer: nn.Module, dtype: torch.dtype, calibrated: bool, layout: str
) -> list[Tensor]:
    """Values, and gradients of input and parameters, of a few steps of a layer; its state."""
    generator = torch.Generator().manual_seed(7)
    if calibrated:
        calibrate(layer, torch.rand(4, 3, 16, 64, generator=generator))
    results = []
    for _ in range(3):
        x = torch.randn(4, 3, 80, 64, generator=generator)
        x = LAYOUTS[layout](x.to(dtype)).requires_grad_()
        for parameter in layer.parameters():
            parameter.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = layer.train()(x)
        y.float().square().sum().backward()
        results += [y.detach(), x.grad]
        results += [p.grad for p in layer.parameters() if p.grad is not None]
    return results + list(layer.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("kind", ONES)
def test_a_step_of_training_is_brevitas_own(
    kind: str, calibrated: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a loop of ours: values, statistics and gradients as by Brevitas' modules."""
    ours = training_steps(ONES[kind](), dtype, calibrated, "channels-last")
    monkeypatch.setattr(LearnedIntQuant, "step", lambda *_, **__: None)
    monkeypatch.setattr(LearnedScaleIntQuant, "fuses", lambda *_: False)
    stock = training_steps(ONES[kind](), dtype, calibrated, "channels-last")
    for a, b in zip(ours, stock, strict=True):
        if a.dim() > 1 and "weight" not in kind and not (kind != "image" and not calibrated):
            assert torch.equal(a, b)
        else:
            # Scales, and what they reach: sums of 60,000 float32 terms in another order; in
            # bfloat16 Brevitas rounds two products of each term to 8 bits before they cancel.
            scale = float(b.abs().max())
            rough = 1e-4 if dtype == torch.float32 else 0.2
            torch.testing.assert_close(a, b, rtol=rough, atol=rough * scale)


def test_what_is_not_known_is_left_to_brevitas() -> None:
    def joined(layer: Any, x: Tensor) -> bool:
        return "_Step" in str(layer(x).grad_fn)

    x = torch.randn(4, 8, requires_grad=True)
    relu = qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)
    assert joined(relu, x)
    assert not joined(relu.eval(), x)
    assert not joined(relu.train().double(), x.double())
    assert torch.equal(relu(torch.full((2, 2), -3.0).double()), torch.zeros(2, 2).double())
    hooked = qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)
    seen: list[Tensor] = []
    pair = hooked.act_quant.fused_activation_quant_proxy
    pair.activation_impl.register_forward_hook(lambda module, args, out: seen.append(out))
    hooked(x)
    assert torch.equal(seen[0], x.relu())
    maximum = qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT, scaling_stats_op="max")
    assert not joined(maximum, x)
    assert torch.equal(maximum(x).detach().amax(), x.detach().amax())


def test_a_percentile_of_nan_is_nan() -> None:
    relu = qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)
    x = torch.rand(400, 1000)
    x[3, 3] = float("nan")
    assert relu(x).isnan().all() == relu(x.clone()).isnan().all()


def test_a_scale_that_is_used_by_itself_learns_from_it() -> None:
    relu = qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT, return_quant_tensor=True)
    calibrate(relu, torch.rand(4, 1, 8, 8))
    relu.train()(torch.randn(5, requires_grad=True)).scale.backward()
    (value,) = relu.parameters()
    assert torch.isclose(value.grad, torch.tensor(1 / 15))


def kept_bytes(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> int:
    """What a forward pass in the trainer's kernels keeps for the backward pass, counted once."""
    seen: dict[int, int] = {}
    pack = fused._pack

    def counting(tensor: Tensor) -> Any:
        kept = pack(tensor)
        storage = (kept if isinstance(kept, Tensor) else kept.x).untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return kept

    x = channels_last(images(64) / 255)
    with monkeypatch.context() as patch:
        patch.setattr(fused, "_pack", counting)
        with fast_kernels(network.train()):
            loss = network(x).logsumexp(1).mean()
    total = sum(seen.values())
    loss.backward()
    return total


def test_a_quantized_network_keeps_little_more_than_the_float_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes are counted, not measured: the same everywhere, and far below 1.3 times float."""
    network = swap_quantizers(float_network())
    calibrate(network, images())
    assert kept_bytes(network, monkeypatch) <= 1.3 * kept_bytes(float_network(), monkeypatch)


def test_what_was_changed_in_place_is_kept_and_not_made_again() -> None:
    x = torch.randn(50, requires_grad=True)
    y = fused_int_quant(x, torch.tensor(0.5), -7, 7)
    with requantizing():
        z = fused_int_quant(x, torch.tensor(0.5), -7, 7)
        z.add_(1.0)
        (z * z).sum().backward()
    inside = (x.detach() / 0.5).round().abs() <= 7
    assert torch.equal(x.grad, torch.where(inside, 2 * (y.detach() + 1), 0.0))


def test_an_input_changed_in_place_is_refused() -> None:
    x = torch.randn(50, requires_grad=True) * 1
    y = fused_int_quant(x, torch.tensor(0.5), -7, 7)
    x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_are_the_same_twice(precision: str) -> None:
    network = swap_quantizers(float_network())
    calibrate(network, images())
    first, second = (gradients(network, precision, fast=True) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@cuda
@pytest.mark.parametrize("rectify", [False, True])
def test_on_cuda_values_and_gradients_are_the_cpus(rectify: bool) -> None:
    def quantize(a: Tensor, s: Tensor) -> Tensor:
        return fused_int_quant(a, s, 0, 15, rectify)

    ours = passes(values().cuda(), 0.237, quantize)
    host = passes(values(), 0.237, quantize)
    assert torch.equal(bits_of(ours[0].cpu()), bits_of(host[0]))
    assert torch.equal(ours[1].cpu(), host[1])
    # A sum of 1,200 float32 terms up to 15 in another order.
    torch.testing.assert_close(ours[2].cpu(), host[2], rtol=1e-4, atol=1e-3)


@cuda
def test_on_cuda_fast_kernels_train_a_network() -> None:
    network = swap_quantizers(float_network()).cuda()
    calibrate(network, images())
    x = channels_last(images() / 255).cuda()
    with fast_kernels(network.train()):
        loss = network(x).logsumexp(1).mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
