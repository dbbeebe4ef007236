// Several streams in turn: of every pixel the beats of the first, then those of the second, ...
module stream_concat #(
	int unsigned  N     = 2,  // streams
	int unsigned  WIDTH = 8,  // bits of a beat
	int unsigned  MOST  = 1,  // the largest of BEATS
	bit [N-1:0][31:0]  BEATS = {N{32'd1}}  // a pixel has of each stream, the first one lowest
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [N-1:0][WIDTH-1:0]  idat,
	input	logic [N-1:0]  ivld,
	output	logic [N-1:0]  irdy,

	output	logic [WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy
);

	localparam int unsigned  TB = N > 1? $clog2(N) : 1;
	localparam int unsigned  CB = MOST > 1? $clog2(MOST) : 1;
	logic [TB-1:0]  Turn;
	logic [CB-1:0]  Beat;
	assign	odat = idat[Turn];
	assign	ovld = ivld[Turn];
	always_comb begin
		irdy = '0;
		irdy[Turn] = ordy;
	end

	wire  last = Beat == CB'(BEATS[Turn] - 1);
	always_ff @(posedge clk) begin
		if(rst) begin
			Turn <= '0;
			Beat <= '0;
		end
		else if(ovld && ordy) begin
			Beat <= last? '0 : Beat + 1'b1;
			if(last)  Turn <= Turn == TB'(N - 1)? '0 : Turn + 1'b1;
		end
	end

endmodule : stream_concat
