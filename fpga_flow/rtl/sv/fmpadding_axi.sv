// Zeros around images that come row by row, channels innermost.
//
// A stand-in for FINN's module of the same name and ports, without its port to change sizes.
// No path leads from m_axis_tready to s_axis_tready but where a beat of the image is due.
module fmpadding_axi #(
	int unsigned  XCOUNTER_BITS,
	int unsigned  YCOUNTER_BITS,
	int unsigned  NUM_CHANNELS,
	int unsigned  SIMD,
	int unsigned  ELEM_BITS,
	int unsigned  INIT_XON,    // first column of the image
	int unsigned  INIT_XOFF,   // first behind it
	int unsigned  INIT_XEND,   // last column
	int unsigned  INIT_YON,
	int unsigned  INIT_YOFF,
	int unsigned  INIT_YEND,

	localparam int unsigned  STREAM_BITS = 8*(1 + (SIMD*ELEM_BITS-1)/8)
)(
	input	logic  ap_clk,
	input	logic  ap_rst_n,

	input	       s_axilite_AWVALID,
	output	       s_axilite_AWREADY,
	input	[4:0]  s_axilite_AWADDR,

	input	        s_axilite_WVALID,
	output	        s_axilite_WREADY,
	input	[31:0]  s_axilite_WDATA,
	input	[ 3:0]  s_axilite_WSTRB,

	output	       s_axilite_BVALID,
	input	       s_axilite_BREADY,
	output	[1:0]  s_axilite_BRESP,

	input	       s_axilite_ARVALID,
	output	       s_axilite_ARREADY,
	input	[4:0]  s_axilite_ARADDR,

	output	        s_axilite_RVALID,
	input	        s_axilite_RREADY,
	output	[31:0]  s_axilite_RDATA,
	output	[ 1:0]  s_axilite_RRESP,

	output	logic  s_axis_tready,
	input	logic  s_axis_tvalid,
	input	logic [STREAM_BITS-1:0]  s_axis_tdata,

	input	logic  m_axis_tready,
	output	logic  m_axis_tvalid,
	output	logic [STREAM_BITS-1:0]  m_axis_tdata
);

	assign	{ s_axilite_AWREADY, s_axilite_WREADY, s_axilite_BVALID, s_axilite_BRESP } = '0;
	assign	{ s_axilite_ARREADY, s_axilite_RVALID, s_axilite_RDATA, s_axilite_RRESP } = '0;

	localparam int unsigned  FOLD = NUM_CHANNELS / SIMD;
	localparam int unsigned  FB = FOLD > 1? $clog2(FOLD) : 1;
	localparam int unsigned  XB = $clog2(INIT_XEND + 2);
	localparam int unsigned  YB = $clog2(INIT_YEND + 2);
	logic [FB-1:0]  Fold;
	logic [XB-1:0]  X;
	logic [YB-1:0]  Y;
	logic  XIn, YIn;   // column, row of the image
	logic  Run;        // not under reset

	wire  inside_ = XIn && YIn;
	wire  step = m_axis_tvalid && m_axis_tready;
	assign	m_axis_tvalid = Run && (!inside_ || s_axis_tvalid);
	assign	m_axis_tdata  = inside_? s_axis_tdata : '0;
	assign	s_axis_tready = Run && inside_ && m_axis_tready;

	wire  fold_end = Fold == FB'(FOLD-1);
	wire  x_end = X == XB'(INIT_XEND);
	wire  y_end = Y == YB'(INIT_YEND);
	wire [XB-1:0]  x = x_end? '0 : X + 1'b1;
	wire [YB-1:0]  y = y_end? '0 : Y + 1'b1;
	always_ff @(posedge ap_clk) begin
		Run <= ap_rst_n;
		if(!ap_rst_n) begin
			Fold <= '0;
			X    <= '0;
			Y    <= '0;
			XIn  <= INIT_XON == 0;
			YIn  <= INIT_YON == 0;
		end
		else if(step) begin
			Fold <= fold_end? '0 : Fold + 1'b1;
			if(fold_end) begin
				X <= x;
				if(x == XB'(INIT_XON))  XIn <= 1;
				else if(x_end || x == XB'(INIT_XOFF))  XIn <= 0;
				if(x_end) begin
					Y <= y;
					if(y == YB'(INIT_YON))  YIn <= 1;
					else if(y_end || y == YB'(INIT_YOFF))  YIn <= 0;
				end
			end
		end
	end

endmodule : fmpadding_axi
