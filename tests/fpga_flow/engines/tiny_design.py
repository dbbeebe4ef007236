"""A hardware design small enough to compile in seconds, written by hand.

``slow`` gives 2x + t of every pixel x, one in four cycles, t from a memory file. ``burst`` takes
the eight of an image in eight cycles, is busy for 20 more, and gives their sum and its negative.
"""

import shutil
from pathlib import Path

import numpy as np

from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl.design import Design, Integers, Node, Stream
from fpga_flow.rtl.design_settings import DesignSettings
from fpga_flow.rtl.stitch import isolated, stitched, top

SHAPE = (1, 2, 4)
PIXELS, OFFSET = 8, 5
SLOW_CYCLES, BURST_CYCLES = 4 * PIXELS, 8 + 20 + 2
RTL_FOLDER = Path(__file__).parents[3] / "fpga_flow" / "rtl" / "sv"

_SLOW = """
module divqat_slow (
    input wire ap_clk, ap_rst_n,
    input wire [7:0] s_axis_tdata, input wire s_axis_tvalid, output wire s_axis_tready,
    output reg [15:0] m_axis_tdata, output reg m_axis_tvalid, input wire m_axis_tready
);
  logic [7:0] table_[1];
  initial $readmemh("slow_weights.dat", table_);
  reg [1:0] pause;
  reg [15:0] seen;
  assign s_axis_tready = pause == 0 && (!m_axis_tvalid || m_axis_tready) && seen < STOP;
  always_ff @(posedge ap_clk) begin
    if (!ap_rst_n) begin
      pause <= 0; m_axis_tvalid <= 0; seen <= 0;
    end else begin
      if (pause != 0) pause <= pause - 1;
      if (m_axis_tready) m_axis_tvalid <= 0;
      if (s_axis_tready && s_axis_tvalid) begin
        m_axis_tdata <= 16'(10'(s_axis_tdata) * 2 + 10'(table_[0]));
        m_axis_tvalid <= 1;
        pause <= 3;
        seen <= seen + 16'(STOP != 65535);
      end
    end
  end
endmodule
"""
_BURST = """
module divqat_burst (
    input wire ap_clk, ap_rst_n,
    input wire [15:0] s_axis_tdata, input wire s_axis_tvalid, output wire s_axis_tready,
    output wire [15:0] m_axis_tdata, output wire m_axis_tvalid, input wire m_axis_tready
);
  reg [5:0] state;  // 0..7: taking; 8..27: busy; 28, 29: giving
  reg signed [15:0] sum;
  assign s_axis_tready = state < 8;
  assign m_axis_tvalid = state >= 28;
  assign m_axis_tdata = state == 28 ? sum : -sum;
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      state <= 0; sum <= 0;
    end else if (state < 8) begin
      if (s_axis_tvalid) begin
        state <= state + 1; sum <= sum + 16'(s_axis_tdata[9:0]);
      end
    end else if (state < 28) state <= state + 1;
    else if (m_axis_tready) begin
      state <= state == 29 ? 0 : state + 1;
      if (state == 29) sum <= 0;
    end
endmodule
"""


def tiny_design(folder: Path, *, depth: int = 2, stop: int = 65535) -> Design:
    """The design in ``folder``; with ``stop``, ``slow`` takes no more than so many pixels."""
    (folder / "src").mkdir(parents=True)
    pixel = Stream(lanes=1, bits=8, signed=False, beats=PIXELS)
    middle = Stream(lanes=1, bits=10, signed=False, beats=PIXELS)
    answer = Stream(lanes=1, bits=16, signed=True, beats=2)
    layers = [
        Node("slow", "MVAU", None, pixel, middle, SLOW_CYCLES, SLOW_CYCLES, 1, 1),
        Node("burst", "MVAU", "sum", middle, answer, BURST_CYCLES, BURST_CYCLES, 1, 1),
    ]
    nodes = stitched(layers, DesignSettings(fifo_depths=depth))
    (folder / "slow_weights.dat").write_text(f"{OFFSET:02x}\n")
    files = {
        "layers.sv": _SLOW.replace("STOP", str(stop)) + _BURST,
        "divqat_top.sv": top(nodes),
        "divqat_isolated.sv": isolated(nodes),
    }
    for name, text in files.items():
        (folder / "src" / name).write_text(text)
    shutil.copy(RTL_FOLDER / "fifo.sv", folder / "src" / "fifo.sv")
    Design(
        folder=folder,
        top="divqat_top",
        sources=tuple(f"src/{name}" for name in ("fifo.sv", *files)),
        data=("slow_weights.dat",),
        style="portable",
        nodes=nodes,
        input=pixel,
        output=answer,
        input_shape=SHAPE,
        input_step=InputStep.plain(1 / 255, 8, SHAPE),
        output_layer="sum",
        output_scale=(0.5,),
        output_bias=(1.0,),
        onnx_sha256="0" * 64,
        versions={},
    ).save()
    return Design.load(folder)


def codes(count: int, seed: int = 0) -> Integers:
    """Random pixels, int64 (N, 8), 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, (count, PIXELS))


def as_images(pixels: Integers) -> np.ndarray:
    """float32 (N, 1, 2, 4) in [0, 1]."""
    return (pixels / np.float32(255)).astype(np.float32).reshape(-1, *SHAPE)


def sums(pixels: Integers) -> Integers:
    """What the design answers, int64 (N, 2)."""
    total = (2 * pixels + OFFSET).sum(axis=1)
    return np.stack([total, -total], axis=1)
