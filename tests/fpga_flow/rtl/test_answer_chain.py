"""Answers chosen on the chip: modules against the definition, alone and as the end of a chain."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from bench import Case, pack, run

from divqat_brevitas.errors import InputError
from fpga_flow.devices.ecp5 import ECP5
from fpga_flow.engines.netlist import as_design
from fpga_flow.engines.simulation import Simulation, compiled
from fpga_flow.lowering.answer import AnswerUnit, ScoreRule, make_answer
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl import Design, DesignSettings, Node, Stream
from fpga_flow.rtl.answer_unit import (
    OPS,
    answer_body,
    answer_cycles,
    answer_memories,
    answer_records,
    answer_stream,
)
from fpga_flow.rtl.layer_modules import cell
from fpga_flow.rtl.library import OURS
from fpga_flow.rtl.stitch import stitched, top
from fpga_flow.synthesis import synth
from fpga_flow.synthesis.tools import Deadline

CLASSES = 6
RATES = ((100, 100), (100, 40), (40, 100), (50, 60))


def unit_of(name, classes, sums, seed, equal=False):
    """A unit with scales and biases of its own, or one for all."""
    rng = np.random.default_rng(seed)
    scale = np.full(classes, 0.25) if equal else rng.uniform(0.01, 0.5, classes)
    bias = np.zeros(classes) if equal else rng.uniform(-3, 3, classes)
    return make_answer(name, scale.tolist(), bias.tolist(), sums)


def with_margin(unit, sums):
    """A margin that half the random images are within, one of them exactly; which ones are."""
    scores = unit.rule.scores(sums)
    behind = scores.max(axis=1) - scores[:, unit.decoy]
    unit = replace(unit, margin=int(np.sort(behind)[len(behind) // 2]))
    assert unit.margin in behind
    return unit, behind <= unit.margin


def reject_half(unit, sums):
    """The unit with a reject output that is the highest for some images, of equals for others."""
    scores = unit.rule.scores(sums)
    over = scores[:, -1] - scores[:, :-1].max(axis=1)
    equal = max(value for value in over if (over > value).mean() >= 0.25)
    shifts = (*unit.rule.shifts[:-1], unit.rule.shifts[-1] - int(equal))
    return replace(unit, rule=replace(unit.rule, shifts=shifts))


def module_case(name, unit, sums, bits, signed, rates, serial):
    """The body that designs get, between the bench's source and sink; a code has the bit above."""
    stream, given = Stream(1, bits, signed, unit.outputs), answer_stream(unit)
    body = answer_body(unit, stream, serial)
    prefix = f"{name}_"
    for old, new in ((" odat;", " codes;"), (".odat(odat)", ".odat(codes)"), ("= odat", "= codes")):
        body = body.replace(old, new)
    codes = unit.codes(sums)
    files = answer_memories(unit, serial)
    for file in files:
        body = body.replace(f'"{file}"', f'"{prefix}{file}"')
    text = f"""
		wire ap_clk = clk, ap_rst_n = !rst;
		wire [{8 * stream.bytes - 1}:0] s_axis_tdata = idat;
		wire [{8 * given.bytes - 1}:0] m_axis_tdata;
		wire s_axis_tvalid = ivld, s_axis_tready, m_axis_tvalid, m_axis_tready = ordy;
		assign irdy = s_axis_tready, ovld = m_axis_tvalid;
		assign odat = {{ 7'b0, body.rejected, m_axis_tdata }};
		if(1) begin : body
{body}
		end"""
    return Case(
        name,
        text,
        8 * stream.bytes,
        8 * given.bytes + 8,
        [pack([value], bits) for value in sums.reshape(-1)],
        (codes + (unit.rejected(sums)[:, None] << 8 * given.bytes)).reshape(-1).tolist(),
        {f"{prefix}{file}": words for file, words in files.items()},
        rates=rates,
    )


@pytest.mark.slow  # simulates generated hardware
def test_modules_give_the_codes_of_the_definition_under_halts(tmp_path):
    names = ["top1", "rounded:1", "rounded:3", "rounded:8", "posterior:1", "posterior:4"]
    names += ["topk:1", "topk:2", "topk:5", "gated:0:1", "gated:4:3", "gated:9"]
    names += ["reject:abstain", "reject:3", "reject:keyed", "reject:keyed", "reject:keyed:2"]
    cases, seen = [], {}
    for number, name in enumerate(names):
        signed, classes = number % 2 == 0, (5, 10)[number % 2]
        rng = np.random.default_rng(number)
        low = -512 if signed else 0
        sums = rng.integers(low, low + 1024, (20, classes))
        sums[:6] = low + rng.integers(0, 2, (6, classes)) * 1023  # extremes, and many ties
        sums[6:9] = sums[6:9, :1]
        unit = unit_of(name, classes, sums, number, equal=number % 3 == 0)
        if unit.decoy is not None:
            unit, gated = with_margin(unit, sums)
            assert 0.2 < gated.mean() < 0.8, name
        if unit.kind == "reject":
            unit = reject_half(unit, sums)
            assert 0.2 < unit.rejected(sums).mean() < 0.8, name
        for serial in (False, True):
            rates = RATES[(number + serial) % 4]
            case = module_case(f"c{number}{serial:d}", unit, sums, 10, signed, rates, serial)
            cases.append(case)
        seen[name] = len(np.unique(unit.codes(sums)))
    found = run(cases, tmp_path)
    for case in cases:
        assert found[case.name] == case.expected, case.name
    assert seen["top1"] >= 4
    assert seen["rounded:3"] == 8
    assert seen["posterior:1"] == 2


def design(folder, unit, bits, signed, lanes, pace):
    """The end of a network alone: sums go in, answers come out."""
    sums = Stream(lanes, bits, signed, CLASSES // lanes)
    sums_record = {"input": vars(sums), "output": vars(sums)}
    records = answer_records({"name": "before", "op": "MVAU", **sums_record}, unit, pace)
    nodes = [
        Node(
            record["name"],
            record["op"],
            None,
            Stream(**record["input"]),
            Stream(**record["output"]),
            None,
            record["cycles"],
            None,
            None,
        )
        for record in records
    ]
    nodes = stitched(nodes, DesignSettings(fifo_depths=2))
    (folder / "src").mkdir(parents=True)
    for path in OURS.glob("*.sv"):
        shutil.copy(path, folder / "src")
    (folder / "src/cells.sv").write_text("".join(cell(record) for record in records))
    (folder / "src/divqat_top.sv").write_text(top(nodes))
    memories = answer_memories(unit, records[-1]["serial"])
    for name, text in memories.items():
        (folder / name).write_text(text)
    sources = ["fifo.sv", "dwc_axi.sv", "class_score.sv", "label_select.sv", "answer_codes.sv"]
    sources += ["cells.sv", "divqat_top.sv"]
    scale = (1.0,) * CLASSES
    Design(
        folder=folder,
        top="divqat_top",
        sources=tuple(f"src/{name}" for name in sources),
        data=tuple(memories),
        style="portable",
        nodes=nodes,
        input=nodes[0].input,
        output=nodes[-1].output,
        input_shape=(CLASSES,),
        input_step=InputStep.plain(
            1.0, nodes[0].input.bits, (CLASSES,), nodes[0].input.signed, nodes[0].input.range
        ),
        output_layer="Gemm_0",
        output_scale=scale,
        output_bias=scale,
        onnx_sha256="0",
        versions={},
        answer=unit.name,
        unit=unit,
    ).save()
    return Design.load(folder)


@pytest.mark.slow  # simulates generated hardware
@pytest.mark.parametrize(
    ("name", "signed", "lanes", "pace"),
    [
        ("top1", True, 1, 0),
        ("top1", True, 2, 10_000),
        ("topk:2", False, 2, 0),
        ("rounded:2", True, 3, 10_000),
        ("gated:5:3", True, 2, 10_000),
        ("reject:keyed", True, 1, 0),
        ("reject:keyed:1", False, 2, 10_000),
    ],
)
def test_a_chain_follows_the_definition_under_stalls(tmp_path, name, signed, lanes, pace):
    rng = np.random.default_rng(0)
    low = -32 if signed else 0
    sums = rng.integers(low, low + 64, (300, CLASSES))
    sums[:50] = sums[:50, :1]  # many equal sums
    rule = ScoreRule(
        tuple(rng.integers(-4, 99, CLASSES).tolist()),
        tuple(rng.integers(-500, 500, CLASSES).tolist()),
    )
    unit = AnswerUnit(name, rule)
    if name != "top1":
        unit = unit_of(name, CLASSES, sums, 1)
    if unit.decoy is not None:
        unit, _ = with_margin(unit, sums)
    if unit.kind == "reject":
        unit = reject_half(unit, sums)
    made = design(tmp_path, unit, 6, signed, lanes, pace)
    assert made.unit == unit
    simulation = Simulation(made, compiled(made))
    try:
        beats = made.beats(sums.astype(np.float32))
        free = simulation.run(beats)
        stalled = simulation.run(beats, idle=40, back_pressure=70, seed=1)
    finally:
        simulation.close()
    expected = unit.codes(sums)
    assert np.array_equal(made.answers(free.beats), expected)
    assert np.array_equal(made.answers(stalled.beats), expected)
    assert np.array_equal(made.predict(free.beats), unit.logits(expected))
    assert np.array_equal(made.labels(free.beats), unit.logits(expected).argmax(axis=1))
    with pytest.raises(InputError, match=r"gives (labels|codes).*no accumulators"):
        made.accumulators(free.beats)
    assert made.classes == CLASSES
    assert made.compared == {"unit": "labels" if unit.label_only else "codes", "answer": name}
    # The unit alone sets the pace; what is said of it holds to the cycle.
    (node,) = [node for node in made.nodes if node.op in OPS]
    cycles = answer_cycles(unit, serial=pace > 0)
    assert cycles == node.finn_cycles
    gaps = np.diff(np.asarray(free.last_output, dtype=np.int64))[20:200]
    assert set(gaps) == {cycles}


@pytest.mark.slow  # synthesises and simulates
def test_the_netlist_of_a_keyed_unit_gives_the_labels_of_the_definition(tmp_path):
    sums = np.random.default_rng(0).integers(-32, 32, (300, CLASSES))
    sums[:50] = sums[:50, :1]  # many equal sums
    unit = reject_half(unit_of("reject:keyed", CLASSES, sums, 1), sums)
    made = design(tmp_path / "design", unit, 6, True, 1, pace=10_000)
    work, cells = tmp_path / "work", tmp_path / "cells"
    work.mkdir()
    cells.mkdir()
    deadline = Deadline(600)
    top_module, around = synth.gather(made, None, work)
    synth.elaborate(made, work, top_module, around, ECP5, deadline)
    synth.map_cells(made, work, top_module, ECP5, deadline, dsp=False)
    mapped = as_design(made, work / synth.CORE_NETLIST, cells)
    simulation = Simulation(mapped, compiled(mapped))
    try:
        stalled = simulation.run(made.beats(sums.astype(np.float32)), idle=40, back_pressure=70)
    finally:
        simulation.close()
    assert np.array_equal(made.answers(stalled.beats), unit.codes(sums))
