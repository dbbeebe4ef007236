// Whole windows of images that come row by row, a pixel a beat; a window a beat leaves.
//
// The rows above stand in one memory, a word a column; its word for the next column is always
// read ahead. The window itself is a shift register.
module window_parallel #(
	int unsigned  WIDTH  = 8,  // bits of a pixel
	int unsigned  ROWS   = 4,  // of the image
	int unsigned  COLS   = 4,
	int unsigned  K_ROWS = 3,  // of a window
	int unsigned  K_COLS = 3,
	int unsigned  S_ROWS = 1,  // stride
	int unsigned  S_COLS = 1
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [K_ROWS-1:0][K_COLS-1:0][WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy
);

	localparam int unsigned  CB = COLS > 1? $clog2(COLS) : 1;
	localparam int unsigned  RB = ROWS > 1? $clog2(ROWS) : 1;

	logic  OVld;
	assign	ovld = OVld;
	assign	irdy = !OVld || ordy;
	wire  take = ivld && irdy;

	//- Position; columns and rows until the next window ends -----------------------------
	localparam int unsigned  XB = $clog2((K_COLS > S_COLS? K_COLS : S_COLS) + 1);
	localparam int unsigned  YB = $clog2((K_ROWS > S_ROWS? K_ROWS : S_ROWS) + 1);
	logic [CB-1:0]  Col;
	logic [RB-1:0]  Row;
	logic [XB-1:0]  XWait;
	logic [YB-1:0]  YWait;
	wire  col_end = Col == CB'(COLS-1);
	wire  row_end = Row == RB'(ROWS-1);
	wire [CB-1:0]  col = col_end? '0 : Col + 1'b1;
	wire  hit = XWait == 0 && YWait == 0;
	always_ff @(posedge clk) begin
		if(rst) begin
			Col   <= '0;
			Row   <= '0;
			XWait <= XB'(K_COLS-1);
			YWait <= YB'(K_ROWS-1);
			OVld  <= 0;
		end
		else begin
			if(take) begin
				Col   <= col;
				XWait <= col_end? XB'(K_COLS-1) : XWait == 0? XB'(S_COLS-1) : XWait - 1'b1;
				if(col_end) begin
					Row   <= row_end? '0 : Row + 1'b1;
					YWait <= row_end? YB'(K_ROWS-1) : YWait == 0? YB'(S_ROWS-1) : YWait - 1'b1;
				end
			end
			if(take)       OVld <= hit;
			else if(ordy)  OVld <= 0;
		end
	end

	//- Rows above, the topmost lowest ------------------------------------------------------
	wire [K_ROWS-1:0][WIDTH-1:0]  column;
	assign	column[K_ROWS-1] = idat;
	if(K_ROWS > 1 && COLS == 1) begin : genColumn   // the word would be read as it is written
		logic [K_ROWS-2:0][WIDTH-1:0]  Above;
		always_ff @(posedge clk) begin
			if(take)  Above <= column[K_ROWS-1:1];
		end
		assign	column[K_ROWS-2:0] = Above;
	end : genColumn
	else if(K_ROWS > 1) begin : genRows
		localparam  STYLE = COLS * (K_ROWS-1) * WIDTH > 1024? "block" : "distributed";
		(* ram_style = STYLE, no_rw_check *)
		logic [K_ROWS-2:0][WIDTH-1:0]  Mem[2**CB];
		logic [K_ROWS-2:0][WIDTH-1:0]  Above;
		always_ff @(posedge clk) begin
			if(take) begin
				Mem[Col] <= column[K_ROWS-1:1];
				Above    <= Mem[col];
			end
		end
		assign	column[K_ROWS-2:0] = Above;
	end : genRows

	logic [K_ROWS-1:0][K_COLS-1:0][WIDTH-1:0]  Window;
	for(genvar  r = 0; r < K_ROWS; r++) begin : genShift
		if(K_COLS == 1) begin : genOne
			always_ff @(posedge clk) begin
				if(take)  Window[r] <= column[r];
			end
		end : genOne
		else begin : genMore
			always_ff @(posedge clk) begin
				if(take)  Window[r] <= { column[r], Window[r][K_COLS-1:1] };
			end
		end : genMore
	end : genShift
	assign	odat = Window;

endmodule : window_parallel
