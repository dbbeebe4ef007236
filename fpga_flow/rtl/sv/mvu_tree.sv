// Sum of N numbers (two's complement, or unsigned), a register behind every level of two-input
// adders.
//
// Every number may bring a carry (worth one): a number that is the complement of what is meant
// brings the one that is missing. N numbers have N-1 adders, each takes a carry in its lowest
// bit for next to nothing; the last carry goes out with the sum.
//
// One adder between registers also keeps synthesis from merging levels into carry-save adders,
// which cost twice as much where adders have carry chains.
module mvu_tree #(
	int unsigned  N     = 2,   // numbers
	int unsigned  W     = 4,   // bits of each
	bit           CARRY = 0,   // carries are used
	bit           EARLY = 0,   // a register before the first adders, too
	bit           SIGNED = 1,

	localparam int unsigned  LEVELS = $clog2(N),
	localparam int unsigned  REGS   = LEVELS == 0? 1 : LEVELS + EARLY
)(
	input	logic  clk,
	input	logic [REGS-1:0]  en,   // a register takes its input: the pipeline's valid bits

	input	logic [N-1:0][W-1:0]  x,
	input	logic [N-1:0]         c,
	output	logic [W+LEVELS-1:0]  y,
	output	logic                 cy
);

	for(genvar  l = 0; l <= LEVELS; l++) begin : genLevel
		localparam int unsigned  M  = (N + 2**l - 1) >> l;
		localparam int unsigned  WL = W + l;
		localparam bit  REG = LEVELS == 0 || l > 0 || EARLY;
		localparam int unsigned  R = l - (LEVELS != 0 && !EARLY && l != 0);

		logic [M-1:0][WL-1:0]  s, v;
		logic [M-1:0]          k, cv;
		if(l == 0) begin : genLeaves
			assign	s = x;
			assign	k = CARRY? c : '0;
		end : genLeaves
		else begin : genSums
			localparam int unsigned  BELOW = (N + 2**(l-1) - 1) >> (l-1);
			for(genvar  i = 0; i < M; i++) begin : genSum
				// One more bit: of the sign, or 0.
				wire [WL-2:0]  a = genLevel[l-1].v[2*i];
				wire [WL-1:0]  a1 = { SIGNED && a[WL-2], a };
				if(2*i+1 == BELOW) begin : genPass
					assign	s[i] = a1;
					assign	k[i] = genLevel[l-1].cv[2*i];
				end : genPass
				else if(CARRY) begin : genCarry
					// The extra bit at the low end makes the carry.
					wire [WL-2:0]  b = genLevel[l-1].v[2*i+1];
					wire [WL:0]  sum =
						{ a1, 1'b1 } + { SIGNED && b[WL-2], b, genLevel[l-1].cv[2*i] };
					assign	s[i] = sum[WL:1];
					assign	k[i] = genLevel[l-1].cv[2*i+1];
				end : genCarry
				else begin : genPlain
					wire [WL-2:0]  b = genLevel[l-1].v[2*i+1];
					assign	s[i] = a1 + { SIGNED && b[WL-2], b };
					assign	k[i] = 0;
				end : genPlain
			end : genSum
		end : genSums

		if(REG) begin : genReg
			always_ff @(posedge clk) begin
				if(en[R])  v <= s;
			end
			if(CARRY) begin : genCarryReg
				always_ff @(posedge clk) begin
					if(en[R])  cv <= k;
				end
			end : genCarryReg
			else  assign  cv = '0;
		end : genReg
		else begin : genWire
			assign	v  = s;
			assign	cv = k;
		end : genWire
	end : genLevel

	assign	y  = genLevel[LEVELS].v[0];
	assign	cy = genLevel[LEVELS].cv[0];

endmodule : mvu_tree
