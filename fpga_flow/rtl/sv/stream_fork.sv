// One stream for several readers: each takes every beat once, and the input goes when all have.
//
// Readers need not be ready at the same time: the order in which they take a beat is theirs.
module stream_fork #(
	int unsigned  WIDTH = 8,  // bits of a beat
	int unsigned  N     = 2   // readers
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [WIDTH-1:0]  odat,   // of all readers
	output	logic [N-1:0]  ovld,
	input	logic [N-1:0]  ordy
);

	logic [N-1:0]  Done;   // readers that took the beat in a former cycle
	assign	ovld = {N{ivld}} & ~Done;
	assign	odat = idat;
	wire [N-1:0]  done = Done | (ovld & ordy);
	assign	irdy = &done;
	always_ff @(posedge clk) begin
		if(rst)        Done <= '0;
		else if(ivld)  Done <= irdy? '0 : done;
	end

endmodule : stream_fork
