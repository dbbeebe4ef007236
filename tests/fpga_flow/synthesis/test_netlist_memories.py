"""Our models of cells for the netlist's simulation: look-up tables, and what a block RAM reads."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import memory_core
import numpy as np
import pytest

from fpga_flow.devices.ecp5 import ECP5
from fpga_flow.engines.netlist import as_design
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.rtl.design import Design, Node, Stream
from fpga_flow.synthesis import synth
from fpga_flow.synthesis.tools import Deadline, run_tool

OLD, NEW = 0x155, 0x0F0  # nine bits each: a byte with its parity
BYTES = 4

# A beat is four byte enables of port A and, above them, whether port B reads elsewhere. In one
# cycle A writes NEW at word 2 with WEA high whatever the enables, and B reads; then B reads word 2.
_PROBE = f"""
module probe (
    input logic ap_clk, input logic ap_rst_n,
    input logic [7:0] s_axis_tdata, input logic s_axis_tvalid, output logic s_axis_tready,
    output logic [39:0] m_axis_tdata, output logic m_axis_tvalid, input logic m_axis_tready
);
  logic [2:0] phase;  // 0: fill, 1: take, 2: write and read, 3, 5: give, 4: read again
  logic [4:0] command;
  wire [3:0] enables = phase == 0 ? 4'hf : phase == 2 ? command[3:0] : 4'h0;
  wire [35:0] data = phase == 0 ? {{{BYTES}{{9'd{OLD}}}}} : {{{BYTES}{{9'd{NEW}}}}};
  wire [35:0] word;
  DP16KD #(.DATA_WIDTH_A(36), .DATA_WIDTH_B(36)) memory (
    {", ".join(f".ADA{i}(enables[{i}])" for i in range(4))}, .ADA4(1'b0), .ADA5(1'b0),
    .ADA6(1'b1), {", ".join(f".ADA{i}(1'b0)" for i in range(7, 14))},
    {", ".join(f".ADB{i}(1'b0)" for i in (*range(6), *range(7, 14)))},
    .ADB6(!(phase == 2 && command[4])),
    {", ".join(f".DIA{i}(data[{i}]), .DIB{i}(data[{18 + i}])" for i in range(18))},
    {", ".join(f".DOA{i}(word[{i}]), .DOB{i}(word[{18 + i}])" for i in range(18))},
    .CLKA(ap_clk), .CEA(1'b1), .WEA(1'b1), .OCEA(1'b1), .RSTA(1'b0),
    .CLKB(ap_clk), .CEB(phase == 2 || phase == 4), .WEB(1'b0), .OCEB(1'b1), .RSTB(1'b0),
    .CSA0(1'b0), .CSA1(1'b0), .CSA2(1'b0), .CSB0(1'b0), .CSB1(1'b0), .CSB2(1'b0)
  );
  assign s_axis_tready = phase == 1;
  assign m_axis_tvalid = phase == 3 || phase == 5;
  assign m_axis_tdata = {{4'd0, word}};
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) phase <= 0;
    else case (phase)
      1: if (s_axis_tvalid) begin command <= s_axis_tdata[4:0]; phase <= 2; end
      3: if (m_axis_tready) phase <= 4;
      5: if (m_axis_tready) phase <= 0;
      default: phase <= phase + 1;
    endcase
endmodule
"""


def design_of(folder: Path, top: str, given: Stream, sources: dict[str, str]) -> Design:
    """``sources`` under ``top``, which takes 8 bits a beat, as many beats as a memory core."""
    base = memory_core.memory_design(folder)
    for name, text in sources.items():
        (folder / name).write_text(text)
    node = Node("ring", "StreamingFIFO", None, base.input, given, None, 1, None, None, 256)
    return dataclasses.replace(
        base, top=top, sources=tuple(sources), data=(), nodes=(node,), output=given
    )


@pytest.mark.slow  # Yosys and a simulation
def test_a_read_meets_only_what_is_written(tmp_path):
    model = files("fpga_flow.engines").joinpath("sv", "DP16KD.sv").read_text()
    given = Stream(lanes=BYTES, bits=9, signed=False, beats=2)
    design = design_of(tmp_path / "probe", "probe", given, {"probe.sv": _PROBE, "DP16KD.sv": model})
    commands = np.arange(32)
    design = dataclasses.replace(
        design,
        input=dataclasses.replace(design.input, beats=1),
        input_shape=(1,),
        input_step=dataclasses.replace(design.input_step, shape=(1,)),
    )
    with RtlEngine(design, threads=1) as engine:
        found = engine.answers((commands[:, None] / 255).astype(np.float32))
    written = (commands[:, None] >> np.arange(BYTES)) & 1 == 1
    elsewhere = commands[:, None] >= 16
    met = np.where(written, ~OLD & 0x1FF, OLD)  # undefined in the device: never what it was
    assert (found[:, :BYTES] == np.where(elsewhere, 0, met)).all()
    assert (found[:, BYTES:] == np.where(written, NEW, OLD)).all()


# A byte and its number go through a ring as a word of 32 bits: one block RAM of 36.
_RING = """
module ring (
    input logic ap_clk, input logic ap_rst_n,
    input logic [7:0] s_axis_tdata, input logic s_axis_tvalid, output logic s_axis_tready,
    output logic [31:0] m_axis_tdata, output logic m_axis_tvalid, input logic m_axis_tready
);
  logic [23:0] count;
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) count <= 0;
    else if (s_axis_tvalid && s_axis_tready) count <= count + 1;
  fifo #(.DEPTH(256), .DATA_WIDTH(32)) queue (
    .clk(ap_clk), .rst(!ap_rst_n), .count(), .maxcount(),
    .idat({count, s_axis_tdata}), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
    .odat(m_axis_tdata), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
  );
endmodule
"""


@pytest.mark.slow
def test_a_full_fifo_in_block_ram_is_the_rtls(tmp_path):
    fifo = files("fpga_flow.rtl").joinpath("sv", "fifo.sv").read_text()
    given = Stream(lanes=1, bits=32, signed=False, beats=memory_core.BEATS)
    design = design_of(tmp_path / "ring", "ring", given, {"fifo.sv": fifo, "ring.sv": _RING})
    work, cells = tmp_path / "work", tmp_path / "cells"
    work.mkdir()
    cells.mkdir()
    deadline = Deadline(600)
    top, around = synth.gather(design, None, work)
    synth.elaborate(design, work, top, around, ECP5, deadline)
    synth.map_cells(design, work, top, ECP5, deadline, dsp=False)
    netlist = work / synth.CORE_NETLIST
    assert "DP16KD" in netlist.read_text()
    images = memory_core.random_images(400, seed=7)  # 3,200 words: the ring is filled and stays so
    with RtlEngine(design, threads=1) as rtl:
        expected = rtl.answers(images)
    pixels = np.rint(images * 255).astype(np.int64).reshape(-1)
    assert (expected.reshape(-1) == pixels + 256 * np.arange(pixels.size)).all()
    with RtlEngine(as_design(design, netlist, cells), threads=1, back_pressure=0.7) as mapped:
        assert (mapped.answers(images) == expected).all()


def test_look_up_tables_are_proved_equal_to_yosys_models(tmp_path):
    """Of one bit each: a table chooses among its bits, so that these decide all others."""
    tables = [
        f"LUT{inputs} #(.INIT({2**inputs}'d{1 << bit})) lut{inputs}_{bit} "
        f"({', '.join(f'.{pin}({pin})' for pin in 'ABCD'[:inputs])}, .Z(Z[{first + bit}]));"
        for inputs, first in ((4, 0), (2, 16))
        for bit in range(2**inputs)
    ]
    probe = ["module probe(input A, B, C, D, output [19:0] Z);", *tables, "endmodule"]
    (tmp_path / "probe.v").write_text("\n".join(probe))
    ours = files("fpga_flow.engines").joinpath("sv", "LUT4.sv").read_text()
    (tmp_path / "LUT4.sv").write_text(ours)
    alike = ["hierarchy -top probe", "proc", "flatten"]
    commands = [
        "read_verilog +/lattice/common_sim.vh probe.v",
        *alike,
        "rename probe theirs",
        "design -stash theirs",
        "read_verilog -sv LUT4.sv probe.v",
        *alike,
        "design -copy-from theirs -as theirs theirs",
        "miter -equiv -flatten probe theirs both",
        "sat -verify -prove trigger 0 both",
    ]
    run_tool("yosys", commands, tmp_path, tmp_path / "log", Deadline(120))
