// The core's clock from the board's (Gowin GW1N, GW2A: rPLL; the output feeds back inside). In
// simulation (DIVQAT_SIM) the clock pin is the core's clock itself.
`ifndef DIVQAT_SIM
(* blackbox *)
module rPLL #(
    parameter FCLKIN = "100.0",
    parameter IDIV_SEL = 0,
    parameter FBDIV_SEL = 0,
    parameter ODIV_SEL = 8
) (
    input CLKIN, CLKFB, RESET, RESET_P,
    input [5:0] FBDSEL, IDSEL, ODSEL,
    input [3:0] PSDA, FDLY, DUTYDA,
    output CLKOUT, LOCK, CLKOUTP, CLKOUTD, CLKOUTD3
);
endmodule
`endif

module divqat_pll #(
    parameter INPUT_MHZ = "27",
    parameter int INPUT_DIVIDER = 1,
    parameter int FEEDBACK_DIVIDER = 2,
    parameter int OUTPUT_DIVIDER = 16
) (
    input  logic clk_in,
    output logic clk,
    output logic locked
);
`ifdef DIVQAT_SIM
  assign clk = clk_in;
  assign locked = 1'b1;
`else
  rPLL #(
      .FCLKIN(INPUT_MHZ),
      .IDIV_SEL(INPUT_DIVIDER - 1),
      .FBDIV_SEL(FEEDBACK_DIVIDER - 1),
      .ODIV_SEL(OUTPUT_DIVIDER)
  ) pll (
      .CLKIN(clk_in),
      .CLKOUT(clk),
      .LOCK(locked),
      .CLKFB(1'b0),
      .RESET(1'b0),
      .RESET_P(1'b0),
      .FBDSEL(6'b0),
      .IDSEL(6'b0),
      .ODSEL(6'b0),
      .PSDA(4'b0),
      .FDLY(4'b0),
      .DUTYDA(4'b0),
      .CLKOUTP(),
      .CLKOUTD(),
      .CLKOUTD3()
  );
`endif
endmodule
