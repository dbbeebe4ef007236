// The sum of two streams of integers, lane by lane. A beat of each in, a beat out, a cycle.
module stream_add #(
	int unsigned  PE = 1,        // lanes
	int unsigned  A_WIDTH = 4,   // bits of a lane
	int unsigned  B_WIDTH = 4,
	int unsigned  O_WIDTH = 5,   // holds every sum
	bit           A_SIGNED = 0,  // two's complement lanes
	bit           B_SIGNED = 0
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [PE-1:0][A_WIDTH-1:0]  adat,
	input	logic  avld,
	output	logic  ardy,

	input	logic [PE-1:0][B_WIDTH-1:0]  bdat,
	input	logic  bvld,
	output	logic  brdy,

	output	logic [PE-1:0][O_WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy
);

	logic  OVld;
	logic [PE-1:0][O_WIDTH-1:0]  ODat;
	assign	ovld = OVld;
	assign	odat = ODat;

	wire  free = !OVld || ordy;
	wire  both = avld && bvld;
	assign	ardy = free && bvld;
	assign	brdy = free && avld;
	always_ff @(posedge clk) begin
		if(rst)        OVld <= 0;
		else if(free)  OVld <= both;
	end

	for(genvar  i = 0; i < PE; i++) begin : genLane
		wire signed [O_WIDTH:0]  a = $signed({A_SIGNED && adat[i][A_WIDTH-1], adat[i]});
		wire signed [O_WIDTH:0]  b = $signed({B_SIGNED && bdat[i][B_WIDTH-1], bdat[i]});
		wire signed [O_WIDTH:0]  sum = a + b;
		always_ff @(posedge clk) begin
			if(free && both)  ODat[i] <= sum[O_WIDTH-1:0];
		end
	end : genLane

endmodule : stream_add
