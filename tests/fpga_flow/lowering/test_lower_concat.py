"""Branches that are concatenated; Trunc behind average pools."""

import numpy as np
import pytest
from equivalence import assert_equivalent
from qonnx.core.modelwrapper import ModelWrapper
from qonnx_graphs import DOMAIN, Graph, images

from fpga_flow.lowering import LoweringError, clean, lower, settle
from fpga_flow.lowering.ir import Concat, Threshold

SHAPE = (3, 8, 8)


def branch(g: Graph, channels: int, scale: float, bits: int = 4, signed: bool = True) -> str:
    return g.quant(g.batch_norm(g.conv(g.image(), 3, channels), channels), scale, bits, signed)


def finished(g: Graph, x: str, channels: int) -> str:
    return g.quant(g.batch_norm(g.conv(x, channels, 4), 4), 0.25, 4)


def concat_of(network: object) -> Concat:
    (layer,) = (one for one in network.layers if isinstance(one, Concat))  # type: ignore[attr-defined]
    return layer


def test_one_scale() -> None:
    g = Graph(SHAPE)
    branches = [branch(g, 2, 0.3), branch(g, 3, 0.3, 5, signed=False), branch(g, 1, 0.3, 2)]
    network = assert_equivalent(
        g.classifier(finished(g, g.node("Concat", *branches, axis=1), 6)), images(SHAPE)
    )
    layer = concat_of(network)
    assert layer.shape == (6, 6, 6)
    assert not layer.shifts.any()
    assert (layer.low.min(), layer.bits) == (-8, 6)


def test_scales_of_powers_of_two_are_shifted_to_the_finest() -> None:
    g = Graph(SHAPE)
    x = g.node("Concat", branch(g, 2, 0.3), branch(g, 2, 0.075), branch(g, 1, 1.2, 8), axis=-3)
    network = assert_equivalent(g.classifier(finished(g, x, 5)), images(SHAPE))
    layer = concat_of(network)
    assert layer.shifts.tolist() == [2, 2, 0, 0, 4]
    assert np.unique(layer.scale).size == 1


def test_a_tensor_with_itself() -> None:
    g = Graph(SHAPE)
    x = branch(g, 2, 0.3)
    assert_equivalent(
        g.classifier(finished(g, g.node("Concat", x, x, x, axis=1), 6)), images(SHAPE)
    )


def test_sums_of_any_scale_before_one_quantizer() -> None:
    g = Graph(SHAPE)
    parts = [g.conv(g.image(), 3, 2, bias=True), g.node("Relu", g.conv(g.image(), 3, 3, bias=True))]
    x = g.quant(g.node("Concat", *parts, axis=1), 0.31, 4)
    model = g.classifier(finished(g, x, 5))
    network = assert_equivalent(model, images(SHAPE))
    assert np.unique(concat_of(network).scale).size == 5
    cleaned = clean(model)
    records = settle(cleaned)
    # Each branch's own bias moves its own thresholds.
    behind = network.layer(concat_of(network).output)
    reader = next(one for one in network.layers if behind.output in one.inputs)
    assert isinstance(reader, Threshold)
    moved = [r for r in records if r.layer == reader.name]
    assert len({r.parameter for r in moved}) == 2
    assert min(r.margin for r in moved) > 0.01


def test_flattened_features() -> None:
    g = Graph(SHAPE)
    parts = [g.node("Flatten", branch(g, 2, 0.3)), g.node("Flatten", branch(g, 3, 0.6, 3))]
    x = g.node("Concat", *parts, axis=1)
    assert_equivalent(g.model(g.linear(x, 180, 5), (1, 5)), images(SHAPE))


def test_pools_of_branches() -> None:
    g = Graph(SHAPE)
    a, b = branch(g, 2, 0.3), branch(g, 3, 0.3)
    pools = [
        g.node("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]),
        g.node("AveragePool", b, kernel_shape=[2, 2], strides=[2, 2]),
    ]
    network = assert_equivalent(
        g.classifier(finished(g, g.node("Concat", *pools, axis=1), 5)), images(SHAPE)
    )
    assert concat_of(network).shifts.tolist() == [2, 2, 0, 0, 0]


def test_a_sum_over_branches_of_unrelated_scale_is_refused() -> None:
    g = Graph(SHAPE)
    x = g.node("Concat", branch(g, 2, 0.3), branch(g, 2, 0.2), axis=1)
    with pytest.raises(LoweringError, match=r"different scale.*on all branches of a concatenation"):
        lower(g.classifier(finished(g, x, 4)))


@pytest.mark.parametrize("axis", [2, -1])
def test_other_axes_are_refused(axis: int) -> None:
    g = Graph(SHAPE)
    x = branch(g, 2, 0.3)
    with pytest.raises(LoweringError, match=r"joins maps along height.*dim=1"):
        lower(g.classifier(finished(g, g.node("Concat", x, x, axis=axis), 2)))


def test_a_constant_branch_is_refused() -> None:
    g = Graph(SHAPE)
    x = g.node("Concat", branch(g, 2, 0.3), g.constant(np.ones((1, 1, 6, 6))), axis=1)
    with pytest.raises(LoweringError, match=r"Concat.*constant where an activation"):
        lower(g.classifier(finished(g, x, 3)))


SCALE = 0.2


def trunc(g: Graph, x: str, *numbers: float, rounding: str = "FLOOR", **attrs: int) -> str:
    """``numbers``: scale, zero-point, input bits, then output scale and bits (or bits alone)."""
    constants = [g.constant(n) for n in numbers]
    return g.node("Trunc", x, *constants, domain=DOMAIN, rounding_mode=rounding, **attrs)


def pooled(g: Graph, signed: bool) -> str:
    x = g.quant(g.batch_norm(g.conv(g.image(), 3, 4), 4, 30.0), SCALE, 4, signed)
    return g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])


@pytest.mark.slow  # lowers large networks
@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("shift", "bits"), [(2, 4), (1, 3), (4, 4), (0, 6)])
def test_the_sum_of_a_pool_is_shifted(rounding: str, signed: bool, shift: int, bits: int) -> None:
    g = Graph(SHAPE)
    numbers = SCALE / 4, 0, 6, SCALE / 4 * 2**shift, bits
    x = trunc(g, pooled(g, signed), *numbers, rounding=rounding, signed=int(signed), narrow=0)
    # Not settled: a quarter of the sums are ties, and every level decides them alike.
    network = assert_equivalent(g.classifier(x), images(SHAPE), settled=False)
    sums, codes = network.layers[2], network.layers[3]
    assert isinstance(codes, Threshold)
    n, c = (network.run(images(SHAPE))[layer.output] for layer in (sums, codes))
    rule = {"ROUND": np.rint, "FLOOR": np.floor, "CEIL": np.ceil}[rounding]
    least = -(2 ** (bits - 1)) if signed else 0
    assert np.array_equal(c, np.clip(rule(n / 2**shift), least, least + 2**bits - 1))


@pytest.mark.parametrize("signed", [False, True])
def test_narrow_codes(signed: bool) -> None:
    g = Graph(SHAPE)
    x = trunc(g, pooled(g, signed), SCALE / 4, 0, 6, SCALE, 3, signed=int(signed), narrow=1)
    assert_equivalent(g.classifier(x), images(SHAPE), settled=False)


@pytest.mark.parametrize("signed", [False, True])
def test_the_first_version_keeps_the_scale_and_clips_nothing(signed: bool) -> None:
    g = Graph(SHAPE)
    x = trunc(g, pooled(g, signed), SCALE / 4, 0, 6, 4, rounding="ROUND")
    model = g.classifier(x)
    for opset in model.model.opset_import:
        if opset.domain == DOMAIN:
            opset.version = 1
    network = assert_equivalent(ModelWrapper(model.model), images(SHAPE), settled=False)
    assert np.allclose(network.layers[3].scale, SCALE / 4)


@pytest.mark.parametrize(
    ("numbers", "rounding", "message"),
    [
        ((SCALE / 4, 1, 6, SCALE, 4), "FLOOR", "zero-point is not 0"),
        ((SCALE / 3, 0, 6, SCALE, 4), "FLOOR", "no integer times its scale.*TruncAvgPool2d"),
        ((SCALE / 4, 0, 6, SCALE, 4), "HALF_UP", "rounding mode HALF_UP"),
        ((SCALE / 4, 0, 6, SCALE, 12), "FLOOR", "leaves 12 bits"),
        ((SCALE / 4, 0, 6, SCALE, 2.5), "FLOOR", "bit width 2.5"),
    ],
)
def test_refusals(numbers: tuple[float, ...], rounding: str, message: str) -> None:
    g = Graph(SHAPE)
    x = trunc(g, pooled(g, True), *numbers, rounding=rounding, signed=1, narrow=0)
    with pytest.raises(LoweringError, match=f"Trunc.*{message}"):
        lower(g.classifier(x))
