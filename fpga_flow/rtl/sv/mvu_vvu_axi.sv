// Matrix-vector unit: a stream of vectors (MW/SIMD beats) in, their products with a matrix
// (MH/PE beats) out; the matrix comes by as a stream of weights, over and over.
// Without IS_MVU the unit of a depthwise convolution: of every PE channels come the MW pixels of a
// window, one (SIMD = 1) a beat, and each channel has weights of its own.
//
// A stand-in for FINN's module of the same name and ports. The core runs freely: instead of
// stopping it when the output is not taken, a result is begun only where there is room for it.
module mvu_vvu_axi #(
	bit IS_MVU = 1,
	int unsigned VERSION = 1,

	int unsigned MW,
	int unsigned MH,
	int unsigned PE,
	int unsigned SIMD,
	int unsigned SEGMENTLEN = 0,

	int unsigned ACTIVATION_WIDTH,
	int unsigned WEIGHT_WIDTH,
	int unsigned ACCU_WIDTH,
	bit NARROW_WEIGHTS     = 0,
	bit SIGNED_ACTIVATIONS = 0,

	bit PUMPED_COMPUTE = 0,
	bit FORCE_BEHAVIORAL = 0,
	bit M_REG_LUT = 1,

	localparam int unsigned  WEIGHT_STREAM_WIDTH    = PE * SIMD * WEIGHT_WIDTH,
	localparam int unsigned  WEIGHT_STREAM_WIDTH_BA = (WEIGHT_STREAM_WIDTH + 7)/8 * 8,
	localparam int unsigned  INPUT_STREAM_WIDTH     = (IS_MVU? 1 : PE) * SIMD * ACTIVATION_WIDTH,
	localparam int unsigned  INPUT_STREAM_WIDTH_BA  = (INPUT_STREAM_WIDTH  + 7)/8 * 8,
	localparam int unsigned  OUTPUT_STREAM_WIDTH    = PE*ACCU_WIDTH,
	localparam int unsigned  OUTPUT_STREAM_WIDTH_BA = (OUTPUT_STREAM_WIDTH + 7)/8 * 8
)(
	input	logic  ap_clk,
	input	logic  ap_clk2x,
	input	logic  ap_rst_n,

	input	logic [WEIGHT_STREAM_WIDTH_BA-1:0]  s_axis_weights_tdata,
	input	logic  s_axis_weights_tvalid,
	output	logic  s_axis_weights_tready,

	input	logic [INPUT_STREAM_WIDTH_BA-1:0]  s_axis_input_tdata,
	input	logic  s_axis_input_tvalid,
	output	logic  s_axis_input_tready,

	output	logic [OUTPUT_STREAM_WIDTH_BA-1:0]  m_axis_output_tdata,
	output	logic  m_axis_output_tvalid,
	input	logic  m_axis_output_tready
);

	if(PUMPED_COMPUTE || MW % SIMD != 0 || MH % PE != 0 || (!IS_MVU && SIMD != 1))
		$error("%m: pumped or uneven units, or several pixels a beat, are not supported.");

	wire  clk = ap_clk;
	wire  rst = !ap_rst_n;
	localparam int unsigned  SF = MW/SIMD;
	localparam int unsigned  NF = IS_MVU? MH/PE : 1;

	//- Every vector NF times ------------------------------------------------------
	wire [INPUT_STREAM_WIDTH-1:0]  act;
	wire  avld, ardy, alast;
	replay_buffer #(.LEN(SF), .REP(NF), .W(INPUT_STREAM_WIDTH)) replay (
		.clk, .rst,
		.idat(s_axis_input_tdata[INPUT_STREAM_WIDTH-1:0]),
		.ivld(s_axis_input_tvalid), .irdy(s_axis_input_tready),
		.odat(act), .olast(alast), .ofin(), .ovld(avld), .ordy(ardy)
	);

	//- A beat where both streams have one, and its result has room -------------------
	wire  full;
	wire  go = !(alast && full);
	wire  fire = avld && s_axis_weights_tvalid && go;
	assign	ardy = s_axis_weights_tvalid && go;
	assign	s_axis_weights_tready = avld && go;

	wire  rvld;
	wire [OUTPUT_STREAM_WIDTH-1:0]  rdat;
	mvu #(
		.VERSION(VERSION), .PE(PE), .SIMD(SIMD),
		.WEIGHT_WIDTH(WEIGHT_WIDTH), .ACTIVATION_WIDTH(ACTIVATION_WIDTH), .ACCU_WIDTH(ACCU_WIDTH),
		.SIGNED_ACTIVATIONS(SIGNED_ACTIVATIONS), .NARROW_WEIGHTS(NARROW_WEIGHTS),
		.APART(!IS_MVU)
	) core (
		.clk, .rst, .en(1'b1),
		.last(alast), .zero(!fire),
		.w(s_axis_weights_tdata[WEIGHT_STREAM_WIDTH-1:0]), .a(act),
		.vld(rvld), .p(rdat)
	);

	//- Results ---------------------------------------------------------------------
	wire  begun = fire && alast;
	wire  taken = m_axis_output_tvalid && m_axis_output_tready;
	wire [OUTPUT_STREAM_WIDTH-1:0]  odat;

	// At 16 beats a result the core is done with one (at most 5 + clog2(SIMD) <= 15 cycles;
	// 3 + clog2(SIMD) + clog2(bits of the narrower operand) where products are bit planes)
	// before the next one's last beat: the core's own result register is enough.
	if(SF >= 16) begin : genRegister
		logic  Busy, OVld;
		always_ff @(posedge clk) begin
			if(rst) begin
				Busy <= 0;
				OVld <= 0;
			end
			else begin
				if(begun)       Busy <= 1;
				else if(taken)  Busy <= 0;
				OVld <= m_axis_output_tvalid && !taken;
			end
		end
		assign	full = Busy;
		assign	m_axis_output_tvalid = rvld || OVld;
		assign	odat = rdat;
	end : genRegister
	else begin : genQueue
		// Begun and not taken: up to 16, which the queue holds.
		logic [4:0]  Pending;
		logic  Full;
		always_ff @(posedge clk) begin
			if(rst) begin
				Pending <= '0;
				Full    <= 0;
			end
			else if(begun != taken) begin
				Pending <= begun? Pending + 5'd1 : Pending - 5'd1;
				Full    <= begun && Pending == 15;
			end
		end
		assign	full = Full;
		fifo #(.DEPTH(16), .DATA_WIDTH(OUTPUT_STREAM_WIDTH)) queue (
			.clk, .rst,
			.idat(rdat), .ivld(rvld), .irdy(),
			.odat, .ovld(m_axis_output_tvalid), .ordy(m_axis_output_tready),
			.count(), .maxcount()
		);
	end : genQueue
	assign	m_axis_output_tdata = OUTPUT_STREAM_WIDTH_BA'(odat);

endmodule : mvu_vvu_axi
