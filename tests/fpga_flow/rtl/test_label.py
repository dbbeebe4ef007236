"""Labels chosen on the chip: the rule in integers, and the module that follows it."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divqat_brevitas.errors import InputError
from fpga_flow.rtl import Design, DesignSettings, Node, Stream
from fpga_flow.rtl.cells import cell
from fpga_flow.rtl.label import DATA, LabelRule, label_records, label_rule
from fpga_flow.rtl.library import OURS
from fpga_flow.rtl.stitch import chain, top
from fpga_flow.simulate.process import Simulation, compiled

CLASSES = 6
FLOATS = st.floats(1e-3, 2.0)
BIASES = st.floats(-5.0, 5.0)


def design(folder, rule, bits, signed, lanes):
    """The end of a network alone: sums go in, labels come out."""
    sums = Stream(lanes, bits, signed, CLASSES // lanes)
    sums_record = {"input": vars(sums), "output": vars(sums)}
    records = label_records({"name": "before", "op": "MVAU", **sums_record}, rule)
    nodes = [
        Node(
            r["name"],
            r["op"],
            None,
            Stream(**r["input"]),
            Stream(**r["output"]),
            None,
            1,
            None,
            None,
        )
        for r in records
    ]
    nodes = chain(nodes, DesignSettings(fifo_depths=2))
    (folder / "src").mkdir(parents=True)
    for path in OURS.glob("*.sv"):
        shutil.copy(path, folder / "src")
    (folder / "src/cells.sv").write_text("".join(cell(record) for record in records))
    (folder / "src/divqat_top.sv").write_text(top(nodes))
    (folder / DATA).write_text(rule.memory())
    sources = ["fifo.sv", "dwc_axi.sv", "label_select.sv", "cells.sv", "divqat_top.sv"]
    scale = (1.0,) * CLASSES
    return Design(
        folder=folder,
        top="divqat_top",
        sources=tuple(f"src/{name}" for name in sources),
        data=(DATA,),
        style="portable",
        nodes=nodes,
        input=nodes[0].input,
        output=nodes[-1].output,
        input_shape=(CLASSES,),
        input_scale=1.0,
        output_layer="Gemm_0",
        output_scale=scale,
        output_bias=scale,
        onnx_sha256="0",
        versions={},
        answer="top1",
    )


@pytest.mark.parametrize(("signed", "lanes"), [(True, 1), (False, 2)])
def test_the_module_follows_the_rule_under_stalls(tmp_path, signed, lanes):
    rng = np.random.default_rng(0)
    rule = LabelRule(
        tuple(rng.integers(-4, 99, CLASSES).tolist()),
        tuple(rng.integers(-500, 500, CLASSES).tolist()),
    )
    low = -32 if signed else 0
    sums = rng.integers(low, low + 64, (300, CLASSES))
    sums[:50] = sums[:50, :1]  # many equal sums
    made = design(tmp_path, rule, 6, signed, lanes)
    simulation = Simulation(made, compiled(made))
    try:
        beats = made.beats(sums.astype(np.float32))
        free = simulation.run(beats)
        stalled = simulation.run(beats, idle=40, back_pressure=70, seed=1)
    finally:
        simulation.close()
    expected = rule.labels(sums)
    assert set(expected) == set(range(CLASSES))
    assert np.array_equal(made.labels(free.beats), expected)
    assert np.array_equal(made.labels(stalled.beats), expected)
    with pytest.raises(InputError, match="gives labels, no accumulators"):
        made.accumulators(free.beats)
    assert made.classes == CLASSES


@settings(max_examples=60)
@given(
    st.lists(FLOATS, min_size=CLASSES, max_size=CLASSES),
    st.lists(BIASES, min_size=CLASSES, max_size=CLASSES),
    st.integers(0, 2**32 - 1),
)
def test_the_rule_is_the_argmax_of_logits_but_for_rounding(scale, bias, seed):
    rule = label_rule(scale, bias, CLASSES)
    sums = np.random.default_rng(seed).integers(-2000, 2000, (50, CLASSES))
    logits = sums * np.array(scale) + np.array(bias)
    # 17 bits of the largest scale; half a unit a scale and a bias.
    unit = max(scale) * 2.0**-16
    slack = (np.abs(sums).max(axis=1) + 1) * unit
    chosen = logits[np.arange(50), rule.labels(sums)]
    assert np.all(chosen >= logits.max(axis=1) - slack)
    assert rule.scale_bits <= 18


def test_equal_scales_and_biases_compare_the_sums_themselves():
    rule = label_rule([0.25], [3.0], 4)
    assert rule == LabelRule((1, 1, 1, 1), (0, 0, 0, 0))
    assert rule.labels(np.array([[3, 5, 5, 1]])).tolist() == [1]
