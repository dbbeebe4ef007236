// Stands in for the module fifo while depths are sought: which of its forms, and how many entries
// it holds, is asked for at reset. Cycle for cycle as the real ones: 0 entries is a wire, 2 are two
// registers, more (a power of two) are a ring and an output register. For simulation only.
module fifo #(
	int unsigned  DEPTH = 2,
	int unsigned  DATA_WIDTH = 8,
	parameter  RAM_STYLE = "auto",
	localparam int unsigned  CB = $clog2(DEPTH+1) + 1
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [DATA_WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [DATA_WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy,

	output	logic [CB-1:0]  count,
	output	logic [CB-1:0]  maxcount
);
	import "DPI-C" function int divqat_fifo_limit(input string path, input int own);

	localparam int unsigned  AB = `DIVQAT_FIFO_BITS;
	logic [AB:0]  Limit;
	wire  wired = Limit == 0;
	wire  registers = Limit <= 2;

	logic [DATA_WIDTH-1:0]  Mem[2**AB];
	logic [DATA_WIDTH-1:0]  ODat, SDat;
	logic [AB:0]  WP, RP;
	logic  OVld, SVld;

	wire  full = registers? SVld : WP - RP == Limit;
	wire  wr = ivld && !full && !wired;
	wire  load = !OVld || ordy;
	wire  stored = registers? SVld : WP != RP;
	assign	irdy = wired? ordy : !full;
	assign	ovld = wired? ivld : OVld;
	assign	odat = wired? idat : ODat;
	assign	count = '0;
	assign	maxcount = '0;

	always_ff @(posedge clk) begin
		if(rst) begin
			Limit <= (AB+1)'(divqat_fifo_limit($sformatf("%m"), DEPTH));
			WP   <= '0;
			RP   <= '0;
			OVld <= 0;
			SVld <= 0;
		end
		else if(registers) begin
			if(wr && !load)  SDat <= idat;
			if(load && (SVld || wr))  ODat <= SVld? SDat : idat;
			if(load) begin
				OVld <= SVld || wr;
				SVld <= 0;
			end
			else if(wr)  SVld <= 1;
		end
		else begin
			if(wr)  Mem[WP[AB-1:0]] <= idat;
			if(wr)  WP <= WP + 1'b1;
			if(stored && load)  ODat <= Mem[RP[AB-1:0]];
			if(stored && load)  RP <= RP + 1'b1;
			if(stored && load)  OVld <= 1;
			else if(ordy)  OVld <= 0;
		end
	end

endmodule : fifo
