// The look-up tables of the ECP5 for simulation: trees of one-bit choices, whose constants Verilator
// folds. yosys' own models choose among words, which makes several times the C++.
module LUT4 (input A, B, C, D, output Z);
  parameter [15:0] INIT = 16'h0000;
  wire low, high;
  LUT3 #(.INIT(INIT[7:0])) below (.A(A), .B(B), .C(C), .Z(low));
  LUT3 #(.INIT(INIT[15:8])) above (.A(A), .B(B), .C(C), .Z(high));
  assign Z = D ? high : low;
endmodule

module LUT3 (input A, B, C, output Z);
  parameter [7:0] INIT = 8'h00;
  wire low, high;
  LUT2 #(.INIT(INIT[3:0])) below (.A(A), .B(B), .Z(low));
  LUT2 #(.INIT(INIT[7:4])) above (.A(A), .B(B), .Z(high));
  assign Z = C ? high : low;
endmodule

module LUT2 (input A, B, output Z);
  parameter [3:0] INIT = 4'h0;
  wire low = A ? INIT[1] : INIT[0];
  wire high = A ? INIT[3] : INIT[2];
  assign Z = B ? high : low;
endmodule
