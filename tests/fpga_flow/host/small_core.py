"""A core small enough to build in seconds: each class is a weighted sum of the image's bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fpga_flow.lowering.answer import AnswerUnit, ScoreRule
from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl.design import Bytes, Design, Integers, Node, Stream
from fpga_flow.synthesis import BitstreamReport
from fpga_flow.synthesis.cells import Cells
from fpga_flow.targets import open_target

BEATS, BYTES, CLASSES = 6, 2, 5

_CORE = """// Stops taking beats for a while behind each image, as a slow layer would.
module small_core (
    input logic ap_clk, input logic ap_rst_n,
    input logic [15:0] s_axis_tdata, input logic s_axis_tvalid, output logic s_axis_tready,
    output logic [23:0] m_axis_tdata, output logic m_axis_tvalid, input logic m_axis_tready
);
  logic [2:0] beat, klass;
  logic [15:0] sum;
  logic [9:0] pause;
  logic full;
  assign s_axis_tready = !full && pause == 0;
  assign m_axis_tvalid = full && pause == 0;
  assign m_axis_tdata = {{8{1'b0}}, sum + 16'd259 * {13'd0, klass}};
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      beat <= 0; klass <= 0; sum <= 0; full <= 0; pause <= 0;
    end else begin
      if (pause != 0) pause <= pause - 1;
      if (s_axis_tvalid && s_axis_tready) begin
        sum <= sum * 16'd31 + {8'd0, s_axis_tdata[7:0]} + {7'd0, s_axis_tdata[15:8], 1'b0};
        beat <= beat + 1;
        if (beat == 5) begin full <= 1; pause <= PAUSE; end
      end
      if (m_axis_tvalid && m_axis_tready) begin
        klass <= klass + 1;
        if (klass == 4) begin klass <= 0; beat <= 0; sum <= 0; full <= 0; end
      end
    end
endmodule
"""


def small_design(folder: Path, pause: int = 40) -> Design:
    folder.mkdir(parents=True)
    (folder / "small_core.sv").write_text(_CORE.replace("PAUSE", str(pause)))
    stream_in = Stream(lanes=2, bits=8, signed=False, beats=BEATS)
    stream_out = Stream(lanes=1, bits=17, signed=False, beats=CLASSES)
    node = Node("all", "MVAU", "sum", stream_in, stream_out, pause, pause + BEATS, 1, 1)
    design = Design(
        folder=folder,
        top="small_core",
        sources=("small_core.sv",),
        data=(),
        style="portable",
        nodes=(node,),
        input=stream_in,
        output=stream_out,
        input_shape=(BEATS * BYTES,),
        input_step=InputStep.plain(1 / 255, 8, (BEATS * BYTES,)),
        output_layer="sum",
        output_scale=(1.0,),
        output_bias=(0.0,),
        onnx_sha256="0" * 64,
        versions={},
    )
    design.save()
    return design


def label_design(folder: Path) -> Design:
    """The same core with an answer unit: it gives the lowest three bits of the sum, as a label."""
    design = small_design(folder)
    text = (folder / "small_core.sv").read_text()
    for old, new in (
        ("[23:0] m_axis_tdata", "[7:0] m_axis_tdata"),
        ("{{8{1'b0}}, sum + 16'd259 * {13'd0, klass}}", "{5'd0, sum[2:0]}"),
        ("klass == 4", "1"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "small_core.sv").write_text(text)
    unit = AnswerUnit("top1", ScoreRule((1,) * 8, (0,) * 8))
    stream = Stream(lanes=1, bits=3, signed=False, beats=1)
    labels = replace(design, output=stream, answer="top1", unit=unit)
    labels.save()
    return labels


def expected(beats: Bytes) -> Integers:
    """What the core gives for beats (N, BEATS, BYTES): int64 (N, CLASSES)."""
    total = np.zeros(len(beats), np.int64)
    for k in range(BEATS):
        total = (total * 31 + beats[:, k, 0] + 2 * beats[:, k, 1].astype(np.int64)) % 65536
    return (total[:, None] + 259 * np.arange(CLASSES)) % 65536


def stand_in(design: Design, folder: Path, target: str, chip: str | None = None) -> BitstreamReport:
    """A bitstream's folder without place and route: every file holds its own name."""
    report = BitstreamReport(
        folder=folder,
        target=target,
        part=open_target(target).part,
        design_sha256=design.digest,
        chip=chip,
        clock_mhz=50.0,
        fmax_mhz=60.0,
        cells=Cells(),
        layers=(),
        comb=1,
        placed_ff=1,
        utilisation={},
        slowest_path=(),
        seed=1,
        bitstream_bytes=4,
        seconds={},
        versions={"pyosys": "0.1"},
    )
    folder.mkdir(exist_ok=True)
    for name in report.needed:
        (folder / name).write_text(name)
    report.save()
    return report
