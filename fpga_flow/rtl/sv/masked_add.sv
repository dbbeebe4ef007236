// The sum of two numbers, each of which counts only where its mask bit is set.
//
// A carry cell of ECP5 has a look-up table of four inputs in front of its adder, which takes both
// masks; synthesis by itself puts them into look-up tables of their own.
module masked_add #(
	int unsigned  W = 4,
	bit  SIGNED = 0
)(
	input	logic [W-1:0]  a,
	input	logic  m,
	input	logic [W-1:0]  b,
	input	logic  n,
	output	logic [W:0]  y
);
	wire [W:0]  a1 = { SIGNED && a[W-1], a };
	wire [W:0]  b1 = { SIGNED && b[W-1], b };

`ifdef DIVQAT_ECP5
	// The first half of the first cell adds nothing: the carry behind it is 0 whatever comes in.
	localparam int unsigned  CELLS = (W + 3)/2;   // of two bits each
	wire [2*CELLS-1:0]  a2 = { a1, 1'b0 };
	wire [2*CELLS-1:0]  b2 = { b1, 1'b0 };
	wire [2*CELLS-1:0]  s;
	wire [CELLS:0]  c;
	assign	c[0] = 0;
	for(genvar  i = 0; i < CELLS; i++) begin : genCell
		// (A & B) ^ (C & D); where that is 0, both are equal, and A & B is the carry.
		CCU2C #(
			.INIT0(i == 0? 16'h0 : 16'h7888), .INIT1(16'h7888),
			.INJECT1_0("NO"), .INJECT1_1("NO")
		) add (
			.CIN(c[i]), .COUT(c[i+1]),
			.A0(a2[2*i]), .B0(m), .C0(b2[2*i]), .D0(n), .S0(s[2*i]),
			.A1(a2[2*i+1]), .B1(m), .C1(b2[2*i+1]), .D1(n), .S1(s[2*i+1])
		);
	end : genCell
	assign	y = s[W+1:1];
`else
	assign	y = (a1 & {(W+1){m}}) + (b1 & {(W+1){n}});
`endif

endmodule : masked_add

`ifdef DIVQAT_ECP5
(* blackbox *)
module CCU2C #(
	parameter  INIT0 = 16'h0,
	parameter  INIT1 = 16'h0,
	parameter  INJECT1_0 = "YES",
	parameter  INJECT1_1 = "YES"
)(
	input  CIN, A0, B0, C0, D0, A1, B1, C1, D1,
	output  S0, S1, COUT
);
endmodule
`endif
