"""explain: the layer as it is now, in words and numbers; validate_quantizer: a class, tried."""

import copy
from typing import Any

import brevitas.nn as qnn
import brevitas.quant as stock
import pytest
import torch
from brevitas.inject import ExtendedInjector
from torch import nn

from divqat_brevitas import swap_quantizers
from divqat_brevitas.errors import InputError
from divqat_brevitas.quant import (
    Int4WeightPerChannelFloatDivQAT,
    Uint4ActPerTensorFloatDivQAT,
    Uint8ImageDivQAT,
    validate_quantizer,
)
from divqat_brevitas.quant.explain import explain


def layer(**changes: Any) -> qnn.QuantConv2d:
    settings = {"weight_quant": Int4WeightPerChannelFloatDivQAT, "input_quant": Uint8ImageDivQAT}
    return qnn.QuantConv2d(3, 8, 3, **(settings | changes))


def test_numbers_are_the_layers() -> None:
    conv = layer(bias_quant=stock.Int32Bias)
    explained = explain(conv).layers[0]
    image, weight, bias = explained.quantizers
    scale = conv.quant_weight().scale
    assert (weight.bit_width, weight.signed, weight.narrow, weight.codes) == (
        4,
        True,
        True,
        (-7, 7),
    )
    assert weight.scales == scale.numel() == 8
    assert weight.scale == (scale.min().item(), scale.max().item())
    assert weight.range == (-7 * scale.max().item(), 7 * scale.max().item())
    assert weight.ours
    assert weight.fused
    assert (image.codes, image.range) == ((0, 255), (0, pytest.approx(1.0)))  # 255 float32 steps
    assert image.scale_source == "constant"
    assert (bias.bit_width, bias.scale, bias.scale_source) == (32, None, "the accumulator's")
    assert explained.problems == ()


def test_where_the_scale_comes_from() -> None:
    relu = qnn.QuantReLU(act_quant=stock.Uint8ActPerTensorFloat, collect_stats_steps=2)
    sources = []
    for _ in range(4):
        sources.append(explain(relu).layers[0].quantizers[0].scale_source)
        relu.train()(torch.rand(4, 3))
    assert sources[0].startswith("not set yet")
    assert sources[1] == "from statistics so far (1 of 2 batches), then learned"
    assert sources[3] == "learned"
    weight = explain(layer(weight_quant=stock.Int8WeightPerTensorFloat)).layers[0].quantizers[1]
    assert weight.scale_source == "computed when used"
    assert not weight.ours


def test_nothing_is_changed() -> None:
    model = nn.Sequential(layer(), qnn.QuantReLU(act_quant=Uint4ActPerTensorFloatDivQAT)).train()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    explain(model)
    assert torch.equal(torch.get_rng_state(), random)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(m.training for m in model.modules())


def test_float_layers_are_problems_until_swapped() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    problems = explain(net).problems
    assert [p.split(":")[0] for p in problems] == ["0", "3"]
    assert all("swap_quantizers" in p for p in problems)
    swapped = explain(swap_quantizers(net))
    assert swapped.problems == ()
    assert swapped["3"].quantizers[0].codes == (-7, 7)
    with pytest.raises(InputError, match=r"no layer 'four' here: 0, 1, 3"):
        swapped["four"]
    with pytest.raises(InputError, match="no layer with weights or quantizers"):
        explain(nn.Flatten())
    unquantized = qnn.QuantLinear(2, 2, True, weight_quant=None)
    assert explain(unquantized).problems == (
        "layer: its weights are float: give it a weight_quant",
    )


@pytest.mark.parametrize(
    ("quantizer", "role", "integers", "finn"),
    [
        (stock.ShiftedUint8ActPerTensorFloat, "act", "zero-point is not 0", "zero-point is not 0"),
        (stock.Int8ActPerTensorFloat.let(bit_width=9), "act", "it has 9 bits", "it has 9 bits"),
        (stock.Fp8e4m3ActPerTensorFloat, "act", "minifloats", "minifloats"),
        (
            stock.Int8ActPerTensorFloat.let(float_to_int_impl_type="floor"),
            "act",
            None,
            "it rounds to nearest, not FLOOR",
        ),
        (stock.Uint8ActPerTensorFloat.let(narrow_range=True), "relu", None, "full range behind"),
        (stock.SignedBinaryActPerTensorConst, "relu", None, "a ReLU of one bit"),
        (stock.MXInt8Weight, "weight", "no export of its proxy Groupwise", "Groupwise"),
    ],
)
def test_problems_are_named(
    quantizer: Any, role: str, integers: str | None, finn: str | None
) -> None:
    if role == "weight":
        module: nn.Module = layer(weight_quant=quantizer, input_quant=None)
    else:
        module = (qnn.QuantReLU if role == "relu" else qnn.QuantIdentity)(act_quant=quantizer)
    (found,) = explain(module).layers[0].quantizers
    for problem, expected in ((found.integer_problem, integers), (found.finn_problem, finn)):
        assert (problem is None) == (expected is None)
        assert expected is None or expected in problem


def test_per_channel_activations_are_not_for_finn() -> None:
    relu = qnn.QuantReLU(
        act_quant=stock.Uint8ActPerTensorFloat,
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, 3, 1, 1),
        scaling_stats_permute_dims=(1, 0, 2, 3),
    )
    relu.train()(torch.rand(2, 3, 4, 4))
    (found,) = explain(relu).layers[0].quantizers
    assert found.scales == 3
    assert found.integer_problem is None
    assert found.finn_problem is not None
    assert "one scale a tensor" in found.finn_problem


class Mine(stock.Int8WeightPerTensorFloat):  # type: ignore[misc]
    """A user's own."""

    bit_width = 3


class NoScale(ExtendedInjector):  # type: ignore[misc]
    proxy_class = stock.Int8WeightPerTensorFloat.proxy_class


class Detached(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().round()


def test_a_users_quantizer_is_tried() -> None:
    random = torch.get_rng_state()
    report = validate_quantizer(Mine)
    assert report.usable
    assert report.quantization.codes == (-3, 3)
    assert str(report).splitlines() == [
        "Mine",
        "  training: yes",
        "  integer engine: yes",
        "  FINN: yes",
    ]
    assert torch.equal(torch.get_rng_state(), random)
    assert validate_quantizer(stock.Int8AccumulatorAwareWeightQuant).usable  # needs quantized input


def test_no_gradient_is_found() -> None:
    class Frozen(stock.Int8ActPerTensorFloat):  # type: ignore[misc]
        float_to_int_impl = Detached
        scaling_impl_type = "const"
        scaling_init = 1.0

    report = validate_quantizer(Frozen)
    assert report.trains is not None
    assert "straight-through rounding" in report.trains
    assert not report.usable


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (
            Mine.let(bitwidth=4),
            "setting 'bitwidth' is not read by anything: did you mean 'bit_width'",
        ),
        (NoScale, r"NoScale cannot be built or run by Brevitas .*tensor_quant"),
        (stock.Uint8ActPerTensorFloatMaxInit, "max_val"),
        (stock.NoneActQuant, "NoneActQuant quantizes nothing"),
        (stock.Int32Bias, "neither weights nor activations"),
        ("Int8WeightPerTensorFloat", "is no quantizer class"),
    ],
)
def test_what_is_no_quantizer_is_refused(quantizer: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate_quantizer(quantizer)
