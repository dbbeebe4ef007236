"""What stands around a network on the chip: the host interface, or next to nothing."""

from dataclasses import dataclass
from pathlib import Path

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.rtl.design import Design

BARE_TOP = "divqat_bare"


@dataclass(frozen=True)
class ChipSources(ShortRepr):
    """The files that make a design a whole chip, with a host interface and pins.

    Attributes:
        name: of the interface and board, for reports, such as ``uart, ulx3s-85f``.
        folder: where the files are.
        top: name of the top module; the design is an instance in it.
        sources: SystemVerilog files in the order to be read, after the design's; relative.
        constraints: pins and clocks (``.lpf``), relative.
        clock_mhz: the clock the design is run at, which has to be met.
    """

    name: str
    folder: Path
    top: str
    sources: tuple[str, ...]
    constraints: str
    clock_mhz: float


def bare_top(design: Design) -> str:
    """SystemVerilog of a top that gives a design five pins and keeps all of it.

    Bits are shifted in and out one a clock cycle. For measuring only the network: no board
    talks to it.
    """
    taken, given = 8 * design.input.bytes, 8 * design.output.bytes
    return f"""// The network with one pin each way: to measure what it takes without an interface.
module {BARE_TOP} (input wire clk, input wire rst_n, input wire valid, input wire ready,
                   input wire in, output wire out);
  reg [{taken - 1}:0] shift_in;
  reg [{given - 1}:0] shift_out;
  reg reset, valid_q, ready_q;
  wire [{given - 1}:0] result;
  wire accepts, done;
  always @(posedge clk) begin
    reset <= rst_n;
    valid_q <= valid;
    ready_q <= ready;
    shift_in <= {{shift_in, in}};
    shift_out <= done && ready_q ? result : {{shift_out, accepts}};
  end
  assign out = shift_out[{given - 1}];
  {design.top} core (.ap_clk(clk), .ap_rst_n(reset), .s_axis_tdata(shift_in),
    .s_axis_tvalid(valid_q), .s_axis_tready(accepts), .m_axis_tdata(result),
    .m_axis_tvalid(done), .m_axis_tready(ready_q));
endmodule
"""
