// The core's clock from the board's (Lattice ECP5). In simulation (DIVQAT_SIM) the clock pin is
// the core's clock itself.
`ifndef DIVQAT_SIM
(* blackbox *)
module EHXPLLL #(
    parameter PLLRST_ENA = "DISABLED",
    parameter INTFB_WAKE = "DISABLED",
    parameter STDBY_ENABLE = "DISABLED",
    parameter DPHASE_SOURCE = "DISABLED",
    parameter OUTDIVIDER_MUXA = "DIVA",
    parameter OUTDIVIDER_MUXB = "DIVB",
    parameter OUTDIVIDER_MUXC = "DIVC",
    parameter OUTDIVIDER_MUXD = "DIVD",
    parameter CLKI_DIV = 1,
    parameter CLKFB_DIV = 1,
    parameter CLKOP_ENABLE = "ENABLED",
    parameter CLKOP_DIV = 8,
    parameter CLKOP_CPHASE = 0,
    parameter CLKOP_FPHASE = 0,
    parameter FEEDBK_PATH = "CLKOP"
) (
    input CLKI, CLKFB, PHASESEL1, PHASESEL0, PHASEDIR, PHASESTEP, PHASELOADREG,
    input STDBY, PLLWAKESYNC, RST, ENCLKOP, ENCLKOS, ENCLKOS2, ENCLKOS3,
    output CLKOP, CLKOS, CLKOS2, CLKOS3, LOCK, INTLOCK, REFCLK, CLKINTFB
);
endmodule
`endif

module divqat_pll #(
    parameter int INPUT_DIVIDER = 1,
    parameter int FEEDBACK_DIVIDER = 3,
    parameter int OUTPUT_DIVIDER = 8
) (
    input  logic clk_in,
    output logic clk,
    output logic locked
);
`ifdef DIVQAT_SIM
  assign clk = clk_in;
  assign locked = 1'b1;
`else
  (* ICP_CURRENT = "12" *) (* LPF_RESISTOR = "8" *)
  (* MFG_ENABLE_FILTEROPAMP = "1" *) (* MFG_GMCREF_SEL = "2" *)
  EHXPLLL #(
      .CLKI_DIV(INPUT_DIVIDER),
      .CLKFB_DIV(FEEDBACK_DIVIDER),
      .CLKOP_DIV(OUTPUT_DIVIDER),
      .CLKOP_CPHASE(OUTPUT_DIVIDER / 2)
  ) pll (
      .CLKI(clk_in),
      .CLKFB(clk),
      .CLKOP(clk),
      .LOCK(locked),
      .RST(1'b0),
      .STDBY(1'b0),
      .PHASESEL0(1'b0),
      .PHASESEL1(1'b0),
      .PHASEDIR(1'b1),
      .PHASESTEP(1'b1),
      .PHASELOADREG(1'b1),
      .PLLWAKESYNC(1'b0),
      .ENCLKOP(1'b0),
      .ENCLKOS(1'b0),
      .ENCLKOS2(1'b0),
      .ENCLKOS3(1'b0)
  );
`endif
endmodule
