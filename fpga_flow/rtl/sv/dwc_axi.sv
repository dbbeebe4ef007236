// Beats of another width: several in one, or one in several. The first is lowest.
//
// A stand-in for FINN's module of the same name and ports; widths of which neither divides the
// other are left to FINN's `vpc`.
module dwc_axi #(
	int unsigned  IBITS,
	int unsigned  OBITS,

	localparam int unsigned  AXI_IBITS = (IBITS+7)/8 * 8,
	localparam int unsigned  AXI_OBITS = (OBITS+7)/8 * 8
)(
	input	logic  ap_clk,
	input	logic  ap_rst_n,

	output	logic  s_axis_tready,
	input	logic  s_axis_tvalid,
	input	logic [AXI_IBITS-1:0]  s_axis_tdata,

	input	logic  m_axis_tready,
	output	logic  m_axis_tvalid,
	output	logic [AXI_OBITS-1:0]  m_axis_tdata
);

	wire  clk = ap_clk;
	wire  rst = !ap_rst_n;
	wire [IBITS-1:0]  idat = s_axis_tdata[IBITS-1:0];
	logic [OBITS-1:0]  odat;
	assign	m_axis_tdata = AXI_OBITS'(odat);
	wire  itrn = s_axis_tvalid && s_axis_tready;
	wire  otrn = m_axis_tvalid && m_axis_tready;

	if(IBITS == OBITS) begin : genWire
		assign	odat = idat;
		assign	m_axis_tvalid = s_axis_tvalid;
		assign	s_axis_tready = m_axis_tready;
	end : genWire
	else if(OBITS % IBITS == 0) begin : genWiden
		localparam int unsigned  N = OBITS / IBITS;
		localparam int unsigned  B = $clog2(N);
		logic [OBITS-1:0]  Dat;
		logic [B-1:0]  Cnt;
		logic  OVld;
		assign	odat = Dat;
		assign	m_axis_tvalid = OVld;
		assign	s_axis_tready = !OVld || m_axis_tready;
		wire  last = Cnt == B'(N-1);
		always_ff @(posedge clk) begin
			if(itrn)  Dat <= { idat, Dat[OBITS-1:IBITS] };
		end
		always_ff @(posedge clk) begin
			if(rst) begin
				Cnt  <= '0;
				OVld <= 0;
			end
			else begin
				if(itrn)       Cnt  <= last? '0 : Cnt + 1'b1;
				if(itrn)       OVld <= last;
				else if(otrn)  OVld <= 0;
			end
		end
	end : genWiden
	else if(IBITS % OBITS == 0) begin : genNarrow
		localparam int unsigned  N = IBITS / OBITS;
		localparam int unsigned  B = $clog2(N);
		logic [IBITS-1:0]  Dat;
		logic [B-1:0]  Cnt;
		logic  Vld;
		wire  last = Cnt == B'(N-1);
		assign	odat = Dat[OBITS-1:0];
		assign	m_axis_tvalid = Vld;
		assign	s_axis_tready = !Vld || (last && m_axis_tready);
		always_ff @(posedge clk) begin
			if(itrn)       Dat <= idat;
			else if(otrn)  Dat <= { {OBITS{1'b0}}, Dat[IBITS-1:OBITS] };
		end
		always_ff @(posedge clk) begin
			if(rst) begin
				Cnt <= '0;
				Vld <= 0;
			end
			else begin
				if(otrn)  Cnt <= last? '0 : Cnt + 1'b1;
				Vld <= itrn || (Vld && !(otrn && last));
			end
		end
	end : genNarrow
	else begin : genMixed
		vpc #(.W(1), .N(IBITS * OBITS), .PI(IBITS), .PO(OBITS)) core (
			.clk, .rst,
			.idat, .ivld(s_axis_tvalid), .irdy(s_axis_tready),
			.odat, .ovld(m_axis_tvalid), .ordy(m_axis_tready)
		);
	end : genMixed

endmodule : dwc_axi
