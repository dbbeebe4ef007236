// Windows of images that come row by row, channels innermost; a window leaves row by row, too:
// all channels of a pixel, or (`DEPTHWISE`) all pixels of the first channels, then of the next.
//
// A ring of rows in memory: an image's last windows leave while the next image's first rows
// come. A row of windows starts when all its rows are there. A beat in and a beat out a cycle.
module window_serial #(
	int unsigned  WIDTH  = 8,  // bits of a beat
	int unsigned  FOLD   = 1,  // beats of a pixel
	int unsigned  ROWS   = 4,  // of the image
	int unsigned  COLS   = 4,
	int unsigned  K_ROWS = 3,  // of a window
	int unsigned  K_COLS = 3,
	int unsigned  S_ROWS = 1,  // stride
	int unsigned  S_COLS = 1,
	bit  DEPTHWISE = 0
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy
);

	localparam int unsigned  O_ROWS = (ROWS - K_ROWS) / S_ROWS + 1;
	localparam int unsigned  O_COLS = (COLS - K_COLS) / S_COLS + 1;
	localparam int unsigned  LINE = COLS * FOLD;   // beats of a row
	localparam int unsigned  CB = LINE > 1? $clog2(LINE) : 1;
	// The ring has 2**RB rows: a window's and those that come meanwhile, and an image's first
	// windows' besides its forerunner's last. With fewer, what comes before would wait while
	// padding fills the ring, and what follows would wait for the next image's first rows.
	localparam int unsigned  ROOM = 2*K_ROWS > K_ROWS + S_ROWS? 2*K_ROWS : K_ROWS + S_ROWS;
	localparam int unsigned  RB = $clog2(ROOM);
	localparam int unsigned  R  = 2**RB;
	localparam int unsigned  REST = ROWS - (O_ROWS-1)*S_ROWS;   // rows of the last windows, and behind
	localparam int unsigned  AB = $clog2(R + REST + 1) + 1;
	// Beats of a window's row that leave one behind the other, how far apart they lie in the row,
	// and how many turns a window takes.
	localparam int unsigned  BEATS = DEPTHWISE? K_COLS : K_COLS*FOLD;
	localparam int unsigned  STEP  = DEPTHWISE? FOLD : 1;
	localparam int unsigned  TURNS = DEPTHWISE? FOLD : 1;
	localparam int unsigned  JB = $clog2(BEATS + 1);
	localparam int unsigned  TB = $clog2(TURNS + 1);
	localparam int unsigned  KB = $clog2(K_ROWS + 1);
	localparam int unsigned  OB = $clog2(O_ROWS + 1);

	localparam  STYLE = R * 2**CB * WIDTH > 1024? "block" : "distributed";
	(* ram_style = STYLE, no_rw_check *)
	logic [WIDTH-1:0]  Mem[R * 2**CB];

	//- In -------------------------------------------------------------------------------
	// Rows complete and not given up; below zero: rows given up before they came.
	logic signed [AB-1:0]  Avail;
	logic [RB-1:0]  WRow;
	logic [CB-1:0]  WCol;
	assign	irdy = Avail < $signed(AB'(R));
	wire  wr = ivld && irdy;
	wire  row_done = wr && WCol == CB'(LINE-1);
	always_ff @(posedge clk) begin
		if(wr)  Mem[{WRow, WCol}] <= idat;
	end
	always_ff @(posedge clk) begin
		if(rst) begin
			WRow <= '0;
			WCol <= '0;
		end
		else if(wr) begin
			WCol <= row_done? '0 : WCol + 1'b1;
			if(row_done)  WRow <= WRow + 1'b1;
		end
	end

	//- Out ------------------------------------------------------------------------------
	logic [JB-1:0]  J;      // beat of the window's row
	logic [KB-1:0]  K;      // row of the window
	logic [TB-1:0]  Turn;
	logic [CB-1:0]  Base;   // the window's first beat in a row
	logic [CB-1:0]  First;  // the turn's first beat in a row
	logic [CB-1:0]  Col;    // the beat to be read
	logic [RB-1:0]  Top;    // the window's first row
	logic [RB-1:0]  Row;    // the row to be read
	logic [OB-1:0]  O;      // row of windows
	logic  OVld;
	logic [WIDTH-1:0]  ODat;
	assign	ovld = OVld;
	assign	odat = ODat;

	wire  rd = Avail >= $signed(AB'(K_ROWS)) && (!OVld || ordy);
	wire  j_end = J == JB'(BEATS - 1);
	wire  k_end = K == KB'(K_ROWS - 1);
	wire  t_end = Turn == TB'(TURNS - 1);
	wire  w_end = Base == CB'((O_COLS-1) * S_COLS * FOLD);
	wire  o_end = O == OB'(O_ROWS - 1);
	wire  row_end = rd && j_end && k_end && t_end && w_end;
	wire [CB-1:0]  base = w_end? '0 : Base + CB'(S_COLS*FOLD);
	wire [CB-1:0]  first = t_end? base : First + 1'b1;
	wire [RB-1:0]  top  = Top + (o_end? RB'(REST) : RB'(S_ROWS));
	always_ff @(posedge clk) begin
		if(rd)  ODat <= Mem[{Row, Col}];
	end
	always_ff @(posedge clk) begin
		if(rst) begin
			J    <= '0;
			K    <= '0;
			O    <= '0;
			Turn <= '0;
			Base <= '0;
			First <= '0;
			Col  <= '0;
			Top  <= '0;
			Row  <= '0;
			OVld <= 0;
		end
		else begin
			if(rd)         OVld <= 1;
			else if(ordy)  OVld <= 0;
			if(rd) begin
				J <= j_end? '0 : J + 1'b1;
				if(!j_end)       Col <= Col + CB'(STEP);
				else if(!k_end)  Col <= First;
				else             Col <= first;
				if(j_end) begin
					K   <= k_end? '0 : K + 1'b1;
					if(!k_end)                Row <= Row + 1'b1;
					else if(!t_end || !w_end) Row <= Top;
					else                      Row <= top;
					if(k_end) begin
						Turn  <= t_end? '0 : Turn + 1'b1;
						First <= first;
						if(t_end)  Base <= base;
						if(t_end && w_end) begin
							Top <= top;
							O   <= o_end? '0 : O + 1'b1;
						end
					end
				end
			end
		end
	end

	always_ff @(posedge clk) begin
		if(rst)  Avail <= '0;
		else     Avail <= Avail + AB'(row_done) -
			(row_end? (o_end? AB'(REST) : AB'(S_ROWS)) : AB'(0));
	end

endmodule : window_serial
