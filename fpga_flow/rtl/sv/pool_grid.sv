// Maximum over windows that do not overlap, of images that come row by row, channels innermost.
//
// The running maxima of one row of windows are kept; no window is ever put together. A beat a
// cycle. Rows and columns that fill no window are dropped.
module pool_grid #(
	int unsigned  PE       = 1,  // lanes
	int unsigned  WIDTH    = 4,  // bits of a lane
	bit           SIGNED   = 0,  // two's complement lanes
	int unsigned  FOLD     = 1,  // beats of a pixel
	int unsigned  ROWS     = 4,  // of the image
	int unsigned  COLS     = 4,
	int unsigned  K_ROWS   = 2,  // of a window
	int unsigned  K_COLS   = 2
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

	localparam int unsigned  O_ROWS = ROWS / K_ROWS;
	localparam int unsigned  O_COLS = COLS / K_COLS;
	localparam int unsigned  WORDS  = O_COLS * FOLD;
	localparam int unsigned  AB = WORDS > 1? $clog2(WORDS) : 1;
	localparam int unsigned  FB = FOLD > 1? $clog2(FOLD) : 1;
	localparam int unsigned  XB = $clog2(COLS + 1);
	localparam int unsigned  YB = $clog2(ROWS + 1);
	localparam int unsigned  KXB = K_COLS > 1? $clog2(K_COLS) : 1;
	localparam int unsigned  KYB = K_ROWS > 1? $clog2(K_ROWS) : 1;

	logic  OVld;
	assign	ovld = OVld;
	wire  en = !OVld || ordy;
	assign	irdy = en;
	wire  take = ivld && en;

	//- Where the beat belongs -----------------------------------------------------------
	logic [FB-1:0]   Fold;
	logic [XB-1:0]   Col;
	logic [YB-1:0]   Row;
	logic [KXB-1:0]  KCol;   // place in the window
	logic [KYB-1:0]  KRow;
	logic [AB-1:0]   Base;   // the window's first word
	wire  fold_end = Fold == FB'(FOLD-1);
	wire  col_end  = Col  == XB'(COLS-1);
	wire  row_end  = Row  == YB'(ROWS-1);
	wire  kcol_end = KCol == KXB'(K_COLS-1);
	wire  krow_end = KRow == KYB'(K_ROWS-1);
	always_ff @(posedge clk) begin
		if(rst) begin
			Fold <= '0;
			Col  <= '0;
			Row  <= '0;
			KCol <= '0;
			KRow <= '0;
			Base <= '0;
		end
		else if(take) begin
			Fold <= fold_end? '0 : Fold + 1'b1;
			if(fold_end) begin
				Col  <= col_end? '0 : Col + 1'b1;
				KCol <= col_end || kcol_end? '0 : KCol + 1'b1;
				if(col_end)        Base <= '0;
				else if(kcol_end)  Base <= Base + AB'(FOLD);
				if(col_end) begin
					Row  <= row_end? '0 : Row + 1'b1;
					KRow <= row_end || krow_end? '0 : KRow + 1'b1;
				end
			end
		end
	end
	wire  inside_ =
		(COLS % K_COLS == 0 || Col < XB'(O_COLS*K_COLS)) &&
		(ROWS % K_ROWS == 0 || Row < YB'(O_ROWS*K_ROWS));
	wire [AB-1:0]  addr = Base + AB'(Fold);

	//- Read, take the maximum, write or give ----------------------------------------------
	// With one beat a pixel the next beat's maximum may be this one's: it is handed on directly.
	localparam  STYLE = WORDS * PE * WIDTH > 1024? "block" : "distributed";
	(* ram_style = STYLE, no_rw_check *)
	logic [PE-1:0][WIDTH-1:0]  Mem[2**AB];
	logic [PE-1:0][WIDTH-1:0]  Old, New, Last;
	logic [AB-1:0]  Addr;
	logic  Vld, First, Same, Give;
	logic [PE-1:0][WIDTH-1:0]  best;
	always_ff @(posedge clk) begin
		if(take) begin
			Old   <= Mem[addr];
			New   <= idat;
			Addr  <= addr;
			First <= KCol == 0 && KRow == 0;
			Same  <= FOLD == 1 && KCol != 0;
			Give  <= kcol_end && krow_end;
		end
		if(en && Vld)  Mem[Addr] <= best;
		if(FOLD == 1 && en && Vld)  Last <= best;
		if(en && Vld && Give)  odat <= best;
	end
	always_ff @(posedge clk) begin
		if(rst) begin
			Vld  <= 0;
			OVld <= 0;
		end
		else if(en) begin
			Vld  <= take && inside_;
			OVld <= Vld && Give;
		end
	end

	for(genvar  i = 0; i < PE; i++) begin : genLane
		// Two's complement with its sign bit inverted compares as unsigned.
		wire [WIDTH-1:0]  flip = SIGNED? WIDTH'(1) << (WIDTH-1) : '0;
		// Kept, as mapping to look-up tables would otherwise merge it into the comparison.
		(* keep *)
		wire [WIDTH-1:0]  old = First? flip : FOLD == 1 && Same? Last[i] : Old[i];
		assign	best[i] = (old ^ flip) > (New[i] ^ flip)? old : New[i];
	end : genLane

endmodule : pool_grid
