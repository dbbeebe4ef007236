"""settle: thresholds leave the integers, by the smallest shift of the right parameter."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qonnx.core.modelwrapper import ModelWrapper
from qonnx_graphs import Graph, images

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import clean, lower, settle
from fpga_flow.lowering.ir import Threshold
from fpga_flow.lowering.lower import trace

SHAPE = (2, 6, 6)


def conv_net(bits: int = 4, seed: int = 0, norm: bool = True, bias: bool = True) -> ModelWrapper:
    g = Graph(SHAPE, seed)
    x = g.conv(g.image(), 2, 6, bias=bias)
    x = g.batch_norm(x, 6, spread=40.0) if norm else x
    return clean(g.classifier(g.quant(g.node("Relu", x), 4 / 2**bits, bits, signed=False)))


def margins(model: ModelWrapper) -> float:
    """The smallest distance of a live threshold from an integer; 1/2 where none is live."""
    distances = [
        np.abs(site.folded.real - np.rint(site.folded.real))[site.folded.live]
        for site in trace(model)[1]
    ]
    return float(np.concatenate(distances).min(initial=0.5))


@settings(deadline=None, max_examples=15)
@example(3, 1, False)  # a bias so large that float32 stores it in steps of 0.001 accumulator step
@example(1, 241, True)  # no threshold within the accumulators' range
@given(st.integers(1, 5), st.integers(0, 2**16), st.booleans())
def test_every_threshold_keeps_the_margin(bits: int, seed: int, norm: bool) -> None:
    model = conv_net(bits, seed, norm)
    records = settle(model)
    assert margins(model) >= 1 / 64
    assert [r.margin >= 1 / 64 for r in records] == [True]
    assert records[0].shift <= 0.5


def test_batch_norm_bias_goes_before_convolution_bias() -> None:
    norm, conv = settle(conv_net(norm=True))[0], settle(conv_net(norm=False))[0]
    assert norm.parameter == "BatchNormalization_0_param1"
    assert conv.parameter == "Conv_0_param0"


def test_records_tell_what_was_written() -> None:
    model = conv_net()
    before = {i.name: model.get_initializer(i.name).copy() for i in model.graph.initializer}
    record = settle(model)[0]
    assert record.layer == "Quant_3"
    assert record.parameter is not None
    assert record.values is not None
    assert record.values.dtype == np.float32
    assert record.margin == margins(model)
    for name, old in before.items():
        new = model.get_initializer(name)
        if name == record.parameter:
            assert np.array_equal(new, record.values)
            assert not np.array_equal(new, old)
        else:
            assert np.array_equal(new, old)


def test_a_settled_model_is_left_alone() -> None:
    model = conv_net()
    settle(model)
    again = settle(model)[0]
    assert (again.values, again.shift) == (None, 0.0)


def test_ties_keep_their_decision() -> None:
    # accumulator / 64 over scale 1/2: the only threshold, 1/2, is the integer 16
    g = Graph((6,))
    x = g.node("MatMul", g.quant("image", 1 / 16, 4, False), g.weight((6, 9), 3, scale=0.25))
    x = g.quant(g.node("Add", x, g.constant(np.zeros(9))), 0.5, 1, signed=False)
    model = clean(g.model(g.linear(x, 9, 5)))
    before = lower(model).layers[1]
    assert margins(model) == 0
    assert settle(model)[0].shift == pytest.approx(1 / 64, rel=0.01)
    after = lower(model).layers[1]
    assert isinstance(before, Threshold)
    assert isinstance(after, Threshold)
    assert np.array_equal(before.thresholds, after.thresholds)


def test_too_many_thresholds_get_the_largest_margin_there_is() -> None:
    model = conv_net(bits=8, norm=False, seed=3)
    before = margins(model)
    record = settle(model, margin=0.25)[0]
    assert before < record.margin < 0.25
    assert record.shift <= 0.5
    # no other shift of a channel does better
    site = trace(model)[1][0]
    for real, live in zip(site.folded.real, site.folded.live, strict=True):
        reached = np.abs(real[live] - np.rint(real[live])).min()
        for shift in np.linspace(-0.5, 0.5, 201):
            moved = real[live] + shift
            assert np.abs(moved - np.rint(moved)).min() <= max(reached * 1.01, 0.25)


def test_a_quantizer_without_parameter_is_listed_with_its_margin() -> None:
    model = conv_net(norm=False, bias=False)
    before = model.model.SerializeToString()
    record = settle(model)[0]
    assert (record.parameter, record.values) == (None, None)
    assert record.margin == margins(model)
    assert model.model.SerializeToString() == before


def test_two_quantizers_behind_one_batch_norm_both_keep_the_margin() -> None:
    g = Graph(SHAPE)
    x = g.batch_norm(g.conv(g.image(), 2, 4), 4, spread=40.0)
    both = g.node("Add", g.quant(x, 0.5, 3), g.quant(x, 0.25, 3))
    model = clean(g.classifier(both))
    records = settle(model)
    assert len({r.parameter for r in records}) == 1
    assert margins(model) >= 1 / 64


def test_max_pool_between_batch_norm_and_quantizer() -> None:
    g = Graph(SHAPE)
    x = g.batch_norm(g.conv(g.image(), 2, 4), 4, spread=40.0)
    x = g.quant(g.node("MaxPool", x, kernel_shape=[2, 2]), 0.3, 3)
    model = clean(g.classifier(x))
    assert settle(model)[0].parameter == "BatchNormalization_0_param1"
    assert margins(model) >= 1 / 64


def test_labels_hardly_change() -> None:
    g = Graph(SHAPE)
    x = g.batch_norm(g.conv(g.image(), 2, 6), 6, spread=40.0)
    model = clean(g.classifier(g.quant(x, 0.3, 4)))
    batch = images(SHAPE, count=100)
    before = lower(model).predict(batch)
    settle(model)
    after = lower(model).predict(batch)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() >= 0.95


@pytest.mark.parametrize("margin", [0.0, 0.5, -1.0, float("nan")])
def test_margin_out_of_range(margin: float) -> None:
    with pytest.raises(InputError, match="not between 0 and 1/2"):
        settle(conv_net(), margin)


def test_only_cleaned_models_are_edited() -> None:
    g = Graph((6,))
    model = g.model(g.linear(g.image(), 6, 5))
    with pytest.raises(InputError, match=r"clean\(model\) first"):
        settle(model)
