// Maximum over windows: of every WINDOW successive beats, lane by lane.
module pool_max #(
	int unsigned  PE     = 1,  // lanes
	int unsigned  WIDTH  = 4,  // bits of a lane
	int unsigned  WINDOW = 4,  // beats of a window
	bit           SIGNED = 0   // two's complement lanes
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [PE-1:0][WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [PE-1:0][WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy
);

	localparam int unsigned  CNT_BITS = WINDOW < 2? 1 : $clog2(WINDOW);
	logic [CNT_BITS-1:0]  cnt;
	logic  first;

	// The result stands in the accumulator until it is taken; the next window starts as it goes.
	assign	irdy = !ovld || ordy;

	wire  last = cnt == CNT_BITS'(WINDOW - 1);
	always_ff @(posedge clk) begin
		if(rst) begin
			cnt   <= '0;
			first <= 1;
			ovld  <= 0;
		end
		else begin
			if(ordy)  ovld <= 0;
			if(ivld && irdy) begin
				cnt   <= last? '0 : cnt + 1'b1;
				first <= last;
				ovld  <= last;
			end
		end
	end

	for(genvar  i = 0; i < PE; i++) begin : genLane
		// Two's complement with its sign bit inverted compares as unsigned.
		wire [WIDTH-1:0]  flip = SIGNED? WIDTH'(1) << (WIDTH-1) : '0;
		wire  larger = (idat[i] ^ flip) > (odat[i] ^ flip);
		always_ff @(posedge clk) begin
			if(ivld && irdy && (first || larger))  odat[i] <= idat[i];
		end
	end

endmodule : pool_max
