"""A core with every kind of cell: block RAM of several shapes, LUT RAM, carries, a multiplier."""

from pathlib import Path

import numpy as np

from fpga_flow.lowering.input_step import InputStep
from fpga_flow.rtl.design import Design, Node, Stream

BEATS = 8
# name -> (words, bits): shapes that yosys maps to different modes of a block RAM
ROMS = {
    "narrow": (2048, 9),
    "nibble": (4096, 4),
    "deep": (8192, 2),
    "wide": (512, 36),
    "even": (1024, 18),
}

_CORE = """
module layer_a (input logic clk, input logic [12:0] address, input logic enable,
                output logic [35:0] word);
  (* ram_style = "block" *) logic [8:0] narrow[2048];
  (* ram_style = "block" *) logic [3:0] nibble[4096];
  (* ram_style = "block" *) logic [1:0] deep[8192];
  (* ram_style = "block" *) logic [35:0] wide[512];
  (* ram_style = "block" *) logic [17:0] even[1024];
  initial begin
    $readmemh("narrow.dat", narrow); $readmemh("nibble.dat", nibble); $readmemh("deep.dat", deep);
    $readmemh("wide.dat", wide); $readmemh("even.dat", even);
  end
  logic [8:0] a; logic [1:0] b; logic [3:0] e; logic [35:0] c; logic [17:0] d;
  always_ff @(posedge clk) if (enable) begin
    a <= narrow[address[10:0]]; b <= deep[address]; c <= wide[address[8:0]];
    d <= even[address[9:0]]; e <= nibble[address[11:0]];
  end
  assign word = c ^ {d, a, 3'd0, e, b};
endmodule

// What was written at an address the last time: read first, or through another port.
module layer_b (input logic clk, input logic [9:0] address, input logic [9:0] other,
                input logic enable, input logic [17:0] word,
                output logic [17:0] old, output logic [35:0] far);
  (* ram_style = "block" *) logic [17:0] one[1024];
  (* ram_style = "block" *) logic [35:0] two[512];
  initial for (int i = 0; i < 1024; i++) one[i] = 18'(3 * i);
  initial for (int i = 0; i < 512; i++) two[i] = 36'(5 * i);
  always_ff @(posedge clk) if (enable) begin
    one[address] <= word; old <= one[address];
  end
  always_ff @(posedge clk) begin
    if (enable) two[address[8:0]] <= {~word, word};
    far <= two[other[8:0]];
  end
endmodule

module memory_core (
    input logic ap_clk, input logic ap_rst_n,
    input logic [7:0] s_axis_tdata, input logic s_axis_tvalid, output logic s_axis_tready,
    output logic [31:0] m_axis_tdata, output logic m_axis_tvalid, input logic m_axis_tready
);
  logic [2:0] beat;
  logic [12:0] address, former;
  logic [31:0] sum;
  logic [3:0] phase;
  logic [7:0] little[16];
  logic [35:0] word, far, word_q;
  logic [17:0] old;
  wire enable = phase == 2;
  layer_a layer_a (.clk(ap_clk), .address, .enable(phase == 1), .word);
  layer_b layer_b (.clk(ap_clk), .address(address[9:0]), .other(former[9:0]), .enable,
    .word(word[17:0]), .old, .far);
  assign s_axis_tready = phase == 0;
  assign m_axis_tvalid = phase == 9;
  assign m_axis_tdata = sum;
  always_ff @(posedge ap_clk) if (phase == 5) little[address[3:0]] <= word[7:0];
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      beat <= 0; address <= 0; former <= 0; sum <= 0; phase <= 0;
    end else case (phase)
      0: if (s_axis_tvalid) begin
        former <= address;
        address <= {address[4:0], 8'd0} ^ {5'd0, s_axis_tdata} + 13'd77;
        phase <= 1;
      end
      4: begin
        word_q <= word; phase <= 5;
        sum <= sum + {5'd0, far[26:0]} + {old, 14'd0} + {word[31:0]};
      end
      6: begin
        sum <= sum ^ $signed(word_q[17:0]) * $signed(old[13:0]) ^ {24'd0, little[former[3:0]]};
        phase <= 7;
      end
      7: begin
        beat <= beat + 1;
        phase <= beat == 7 ? 9 : 0;
      end
      9: if (m_axis_tready) begin phase <= 0; sum <= 0; end
      default: phase <= phase + 1;
    endcase
  initial for (int i = 0; i < 16; i++) little[i] = 0;
endmodule
"""


def memory_design(folder: Path) -> Design:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    (folder / "src").mkdir()
    (folder / "src" / "memory_core.sv").write_text(_CORE)
    for name, (words, bits) in ROMS.items():
        rows = rng.integers(0, 1 << bits, words)
        (folder / f"{name}.dat").write_text("".join(f"{row:x}\n" for row in rows))
    taken = Stream(lanes=1, bits=8, signed=False, beats=BEATS)
    given = Stream(lanes=1, bits=32, signed=False, beats=1)
    nodes = tuple(
        Node(name, "MVAU", None, taken, given, None, 100, 1, 1) for name in ("layer_a", "layer_b")
    )
    design = Design(
        folder=folder,
        top="memory_core",
        sources=("src/memory_core.sv",),
        data=tuple(f"{name}.dat" for name in ROMS),
        style="portable",
        nodes=nodes,
        input=taken,
        output=given,
        input_shape=(BEATS,),
        input_step=InputStep.plain(1 / 255, 8, (BEATS,)),
        output_layer="sum",
        output_scale=(1.0,),
        output_bias=(0.0,),
        onnx_sha256="0" * 64,
        versions={},
    )
    design.save()
    return design


def random_images(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, (count, BEATS)) / 255).astype(np.float32)
