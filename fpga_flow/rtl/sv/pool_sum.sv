// Sums over whole images, channel by channel: an average without its division.
//
// An image comes pixel by pixel, channels innermost. The running sums are kept in a memory; those
// of the last pixel leave as they are made. A beat a cycle, from one image to the next.
module pool_sum #(
	int unsigned  PE      = 1,   // lanes
	int unsigned  I_WIDTH = 4,   // bits of a lane
	int unsigned  O_WIDTH = 8,   // holds every sum
	bit           SIGNED  = 0,   // two's complement lanes
	int unsigned  FOLD    = 1,   // beats of a pixel
	int unsigned  PIXELS  = 16   // of an image
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [PE-1:0][I_WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [PE-1:0][O_WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy
);

	localparam int unsigned  FB = FOLD > 1? $clog2(FOLD) : 1;
	localparam int unsigned  XB = PIXELS > 1? $clog2(PIXELS) : 1;

	logic  OVld;
	logic [PE-1:0][O_WIDTH-1:0]  ODat;
	assign	ovld = OVld;
	assign	odat = ODat;

	//- Where the beat belongs -----------------------------------------------------------
	logic [FB-1:0]  Fold;
	logic [XB-1:0]  Pixel;
	wire  first = Pixel == '0;
	wire  last  = Pixel == XB'(PIXELS-1);
	wire  fold_end = Fold == FB'(FOLD-1);
	assign	irdy = !last || !OVld || ordy;
	wire  take = ivld && irdy;
	always_ff @(posedge clk) begin
		if(rst) begin
			Fold  <= '0;
			Pixel <= '0;
		end
		else if(take) begin
			Fold <= fold_end? '0 : Fold + 1'b1;
			if(fold_end)  Pixel <= last? '0 : Pixel + 1'b1;
		end
	end

	//- Read, add, write or give -----------------------------------------------------------
	// Read in the cycle of its use, so that one beat a pixel needs nothing handed on.
	(* ram_style = "distributed", no_rw_check *)
	logic [PE-1:0][O_WIDTH-1:0]  Mem[2**FB];
	wire [PE-1:0][O_WIDTH-1:0]  old = Mem[Fold];
	logic [PE-1:0][O_WIDTH-1:0]  sum;
	for(genvar  i = 0; i < PE; i++) begin : genLane
		wire signed [O_WIDTH:0]  x = $signed({SIGNED && idat[i][I_WIDTH-1], idat[i]});
		assign	sum[i] = (first? '0 : old[i]) + x[O_WIDTH-1:0];
	end : genLane
	always_ff @(posedge clk) begin
		if(take)  Mem[Fold] <= sum;
		if(take && last)  ODat <= sum;
	end
	always_ff @(posedge clk) begin
		if(rst)  OVld <= 0;
		else if(take && last)  OVld <= 1;
		else if(ordy)  OVld <= 0;
	end

endmodule : pool_sum
