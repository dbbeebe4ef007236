// Number of thresholds a value reaches, lane by lane; every channel has N ascending thresholds.
//
// A stand-in for FINN's module of the same name and ports, without its port to change thresholds.
// The binary search takes the thresholds of its step s from the memory file of stage s.
//  - DEEP_PIPELINE = 1: a stage with a comparator for each step; a beat a cycle.
//  - DEEP_PIPELINE = 0: one comparator a lane, two cycles a step: 2*steps + 1 cycles a beat.
// Values are compared as they come: unlike FINN's, they need no saturation to WT bits.
module thresholding_axi #(
	int unsigned  WI,	// bits of values
	int unsigned  WT,	// bits of thresholds
	int unsigned  N,	// thresholds a channel
	int unsigned  C = 1,	// channels
	int unsigned  PE = 1,	// lanes

	bit  SIGNED = 1,
	bit  FPARG  = 0,
	int  BIAS   = 0,	// result of a value below all thresholds

	int unsigned  SETS = 1,

	parameter  THRESHOLDS_PATH = "",
	bit  USE_AXILITE = 0,

	int unsigned  DEPTH_TRIGGER_URAM = 0,
	int unsigned  DEPTH_TRIGGER_BRAM = 0,
	bit  DEEP_PIPELINE = 0,

	localparam int unsigned  CF = C/PE,
	localparam int unsigned  ADDR_WIDTH = $clog2(CF) + $clog2(PE) + $clog2(N) + $clog2(1 + (WT-1)/32) + 2,
	localparam int unsigned  S_BITS = SETS > 2? $clog2(SETS) : 1,
	localparam int unsigned  O_BITS = BIAS >= 0?
		$clog2(N+BIAS+1) : 1+$clog2(-BIAS >= N+BIAS+1? -BIAS : N+BIAS+1)
)(
	input	logic  ap_clk,
	input	logic  ap_rst_n,

	input	logic                   s_axilite_AWVALID,
	output	logic                   s_axilite_AWREADY,
	input	logic [ADDR_WIDTH-1:0]  s_axilite_AWADDR,

	input	logic         s_axilite_WVALID,
	output	logic         s_axilite_WREADY,
	input	logic [31:0]  s_axilite_WDATA,
	input	logic [ 3:0]  s_axilite_WSTRB,

	output	logic        s_axilite_BVALID,
	input	logic        s_axilite_BREADY,
	output	logic [1:0]  s_axilite_BRESP,

	input	logic                   s_axilite_ARVALID,
	output	logic                   s_axilite_ARREADY,
	input	logic [ADDR_WIDTH-1:0]  s_axilite_ARADDR,

	output	logic         s_axilite_RVALID,
	input	logic         s_axilite_RREADY,
	output	logic [31:0]  s_axilite_RDATA,
	output	logic [ 1:0]  s_axilite_RRESP,

	output	logic  s_axis_set_tready,
	input	logic  s_axis_set_tvalid,
	input	logic [((S_BITS+7)/8)*8-1:0]  s_axis_set_tdata,

	output	logic  s_axis_tready,
	input	logic  s_axis_tvalid,
	input	logic [((PE*WI+7)/8)*8-1:0]  s_axis_tdata,

	input	logic  m_axis_tready,
	output	logic  m_axis_tvalid,
	output	logic [((PE*O_BITS+7)/8)*8-1:0]  m_axis_tdata
);

	if(FPARG || USE_AXILITE || SETS != 1 || CF*PE != C)
		$error("%m: float, writable, several sets of or uneven thresholds are not supported.");
	assign	{ s_axilite_AWREADY, s_axilite_WREADY, s_axilite_BVALID, s_axilite_BRESP } = '0;
	assign	{ s_axilite_ARREADY, s_axilite_RVALID, s_axilite_RDATA, s_axilite_RRESP } = '0;
	assign	s_axis_set_tready = 0;

	wire  clk = ap_clk;
	wire  rst = !ap_rst_n;
	localparam int unsigned  M  = $clog2(N+1);   // steps
	localparam int unsigned  CB = CF > 1? $clog2(CF) : 1;
	// Compared as two's complement of K bits.
	localparam int unsigned  K = (WI > WT? WI : WT) + !SIGNED;

	//- Channel of the beat at the input -------------------------------------------
	wire  take = s_axis_tvalid && s_axis_tready;
	wire [CB-1:0]  channel;
	if(CF == 1)  assign  channel = '0;
	else begin : genChannel
		logic [CB-1:0]  Channel;
		always_ff @(posedge clk) begin
			if(rst)        Channel <= '0;
			else if(take)  Channel <= Channel == CB'(CF-1)? '0 : Channel + 1'b1;
		end
		assign	channel = Channel;
	end : genChannel

	wire signed [K-1:0]  value[PE];
	for(genvar  pe = 0; pe < PE; pe++)
		assign  value[pe] = K'($signed({ SIGNED && s_axis_tdata[pe*WI+WI-1], s_axis_tdata[pe*WI+:WI] }));

	wire [PE-1:0][M-1:0]  result;
	for(genvar  pe = 0; pe < PE; pe++)
		assign  m_axis_tdata[pe*O_BITS+:O_BITS] = O_BITS'(result[pe]) + O_BITS'(BIAS);
	if($bits(m_axis_tdata) > PE*O_BITS)  assign  m_axis_tdata[$left(m_axis_tdata):PE*O_BITS] = '0;

	if(DEEP_PIPELINE) begin : genPipeline
		logic [M-1:0]  Vld;   // behind the memory of each stage
		logic  OVld;
		wire  en = !OVld || m_axis_tready;
		assign	s_axis_tready = en;
		assign	m_axis_tvalid = OVld;
		always_ff @(posedge clk) begin
			if(rst)      { OVld, Vld } <= '0;
			else if(en)  { OVld, Vld } <= { Vld, s_axis_tvalid };
		end

		for(genvar  s = 0; s < M; s++) begin : genStage
			localparam int unsigned  WORDS = CF * 2**s;
			localparam int unsigned  AB = WORDS > 1? $clog2(WORDS) : 1;
			wire  go;   // a beat enters this stage
			wire [CB-1:0]  chan;
			logic [CB-1:0]  Chan;
			if(s == 0) begin : genFirst
				assign	go   = take;
				assign	chan = channel;
			end : genFirst
			else begin : genNext
				assign	go   = en && Vld[s-1];
				assign	chan = genStage[s-1].Chan;
			end : genNext
			if(CF == 1 || s == M-1)  assign  Chan = '0;
			else begin : genChan
				always_ff @(posedge clk) begin
					if(go)  Chan <= chan;
				end
			end : genChan

			for(genvar  pe = 0; pe < PE; pe++) begin : genLane
				logic signed [WT:0]   Thresh;   // one bit more: unsigned ones, too
				logic signed [K-1:0]  Value;
				wire signed [K-1:0]   val;
				wire [AB-1:0]  addr;
				if(s == 0) begin : genFirst
					assign	val  = value[pe];
					assign	addr = CF == 1? '0 : AB'(chan);
				end : genFirst
				else begin : genNext
					assign	val  = genStage[s-1].genLane[pe].Value;
					assign	addr = AB'({ chan, genStage[s-1].genLane[pe].path });
				end : genNext

				logic [WT-1:0]  Mem[WORDS];
				initial  $readmemh($sformatf("%sthreshs_%0d_%0d.dat", THRESHOLDS_PATH, pe, s), Mem);
				if(WORDS == 1)  assign  Thresh = $signed({ SIGNED && Mem[0][WT-1], Mem[0] });
				else begin : genRead
					logic [WT-1:0]  Word;
					always_ff @(posedge clk) begin
						if(go)  Word <= Mem[addr];
					end
					assign	Thresh = $signed({ SIGNED && Word[WT-1], Word });
				end : genRead
				always_ff @(posedge clk) begin
					if(go)  Value <= val;
				end

				// Bits of the result so far: those before, and this comparison's
				wire [s:0]  path;
				logic [(s > 0? s : 1)-1:0]  Before;
				if(s > 0) begin : genBefore
					always_ff @(posedge clk) begin
						if(go)  Before <= genStage[s-1].genLane[pe].path;
					end
					assign	path[s:1] = Before;
				end : genBefore
				else  assign  Before = '0;
				wire  reached = Value >= K'(Thresh);
				if(N == 2**M - 1)  assign  path[0] = reached;
				else begin : genScope
					wire [M:0]  index = ((M+1)'(Before) << (M-s)) + (M+1)'(2**(M-1-s) - 1);
					assign	path[0] = reached && index < (M+1)'(N);
				end : genScope

				if(s == M-1) begin : genResult
					logic [M-1:0]  Result;
					always_ff @(posedge clk) begin
						if(en && Vld[s])  Result <= path;
					end
					assign	result[pe] = Result;
				end : genResult
			end : genLane
		end : genStage
	end : genPipeline

	else begin : genSequence
		// The value waits in front until its search is over. Stage s has the words from
		// CF*(2**s - 1) on, so that the word behind word a is 2*a + CF, or the one after it.
		localparam int unsigned  WORDS = CF * (2**M - 1);
		localparam int unsigned  AB = $clog2(WORDS + 1);
		localparam  STYLE = WORDS > 64? "block" : "auto";
		logic [$clog2(M+1)-1:0]  Step;
		logic  Read;   // the threshold is in its register
		logic  Run, OVld;
		assign	m_axis_tvalid = OVld;
		wire  finish = Read && Step == $clog2(M+1)'(M-1);
		assign	s_axis_tready = finish;
		wire  start = s_axis_tvalid && !Run && (!OVld || m_axis_tready);
		always_ff @(posedge clk) begin
			if(rst) begin
				Run  <= 0;
				Read <= 0;
				OVld <= 0;
				Step <= '0;
			end
			else begin
				Run  <= start || (Run && !finish);
				Read <= Run && !Read;
				if(start)      Step <= '0;
				else if(Read)  Step <= Step + 1'b1;
				OVld <= finish || (OVld && !m_axis_tready);
			end
		end

		for(genvar  pe = 0; pe < PE; pe++) begin : genLane
			(* ram_style = STYLE *)
			logic [WT-1:0]  Mem[WORDS];
			for(genvar  s = 0; s < M; s++) begin : genInit
				initial  $readmemh(
					$sformatf("%sthreshs_%0d_%0d.dat", THRESHOLDS_PATH, pe, s), Mem,
					CF*(2**s - 1), CF*(2**(s+1) - 1) - 1
				);
			end : genInit

			logic [AB-1:0]  Addr;
			logic [WT-1:0]  Word;
			logic [M-1:0]   Result;
			wire signed [K-1:0]  thresh = K'($signed({ SIGNED && Word[WT-1], Word }));
			wire  reached = value[pe] >= thresh;
			wire  bit_;
			if(N == 2**M - 1)  assign  bit_ = reached;
			else begin : genScope
				wire [2*M:0]  index = (((2*M+1)'(Result) << M) >> Step) + (((2*M+1)'(1) << (M-1)) >> Step);
				assign	bit_ = reached && index <= (2*M+1)'(N);
			end : genScope
			always_ff @(posedge clk) begin
				if(Run && !Read)  Word <= Mem[Addr];
			end
			always_ff @(posedge clk) begin
				if(start) begin
					Addr   <= AB'(channel);
					Result <= '0;
				end
				else if(Read) begin
					Addr   <= AB'({ Addr, bit_ }) + AB'(CF);
					Result <= M'({ Result, bit_ });
				end
			end
			assign	result[pe] = Result;
		end : genLane
	end : genSequence

endmodule : thresholding_axi
