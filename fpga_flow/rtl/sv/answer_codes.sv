// A few bits for every class's score: score = sum * scale + shift, then thresholds passed.
//
// CLASSES sums enter, one a beat; as many codes leave in the same order. A code counts the
// thresholds (of a file, ascending) that the score passes (score >= threshold), or with RELATIVE
// its distance from the highest score (zero or less). With KEEP only the KEEP highest scores, of
// equal ones those that came first, get a code, a 1 above it; the others get 0. With GATED, where the
// distance of class DECOY from the highest score is at least the file's first word, the label gets
// all ones and the others get 0.
//
// Sums are taken as class_score does, of whose file they are. Then, while none are taken: KEEP-1 searches for the next lower
// score, of 2*CLASSES+1 cycles each, and 2*BITS+3 cycles for every code; 4 for the gate.
module answer_codes #(
	int unsigned  CLASSES = 2,
	int unsigned  WIDTH = 8,         // bits of a sum
	bit           SIGNED = 1,
	int unsigned  SCALE_WIDTH = 18,
	int unsigned  SHIFT_WIDTH = 32,
	bit           SERIAL = 0,
	int unsigned  BITS = 1,          // of a count: 2^BITS-1 thresholds
	int unsigned  THRESHOLD_WIDTH = 8,
	bit           RELATIVE = 0,
	int unsigned  KEEP = 0,          // 0: all
	bit           GATED = 0,
	int unsigned  DECOY = 0,
	int unsigned  CODE_WIDTH = 1,    // BITS, with KEEP one more
	parameter     INIT_FILE = "",
	parameter     THRESHOLD_FILE = ""   // 2^BITS words, the first one the gate's
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [CODE_WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy,

	// For what counts rejections: the last code of an image leaves, and the decoy was in play.
	output	logic  answered,
	output	logic  rejected
);

	localparam int unsigned  PRODUCT_WIDTH = WIDTH + 1 + SCALE_WIDTH;
	localparam int unsigned  SCORE_WIDTH = 1 + (PRODUCT_WIDTH > SHIFT_WIDTH? PRODUCT_WIDTH : SHIFT_WIDTH);
	localparam int unsigned  VALUE_WIDTH = 1 + SCORE_WIDTH;
	localparam int unsigned  AB = CLASSES > 1? $clog2(CLASSES) : 1;
	localparam int unsigned  KB = $clog2(KEEP + 2);

	logic [THRESHOLD_WIDTH-1:0]  Thresholds[1<<BITS];
	initial  $readmemh(THRESHOLD_FILE, Thresholds);
	logic [SCORE_WIDTH-1:0]  Scores[CLASSES];

	//- Sums in, scores out --------------------------------------------------------------
	logic  Open;   // more sums are to come
	wire  done;    // the last code leaves
	wire  ready, last;
	assign	irdy = ready && Open;
	wire signed [SCORE_WIDTH-1:0]  score;
	wire [AB-1:0]  sclass;
	wire  svld;
	class_score #(
		.CLASSES(CLASSES), .WIDTH(WIDTH), .SIGNED(SIGNED), .SCALE_WIDTH(SCALE_WIDTH),
		.SHIFT_WIDTH(SHIFT_WIDTH), .SERIAL(SERIAL), .INIT_FILE(INIT_FILE)
	) class_score (
		.clk, .rst, .idat, .ivld(ivld && Open), .irdy(ready), .ilast(last),
		.score, .sclass, .svld, .srdy(1'b1)
	);
	always_ff @(posedge clk) begin
		if(rst)                        Open <= 1;
		else if(ivld && irdy && last)  Open <= 0;
		else if(done)                  Open <= 1;
	end
	always_ff @(posedge clk) begin
		if(svld)  Scores[sclass] <= score;
	end

	logic signed [SCORE_WIDTH-1:0]  Highest;
	logic [AB-1:0]  HighestClass;
	always_ff @(posedge clk) begin
		if(svld && (sclass == '0 || score > Highest)) begin
			Highest      <= score;
			HighestClass <= sclass;
		end
	end

	//- What happens when all scores are there ---------------------------------------------
	localparam logic [3:0]  FILL = 0, START = 1, SEEK = 2, LOOK = 3, FOUND = 4;
	localparam logic [3:0]  LOAD = 5, PLACE = 6, READ = 7, COMPARE = 8, GIVE = 9;
	logic [3:0]  State;
	logic [AB-1:0]  At;        // class that is looked at
	logic [BITS-1:0]  Bit;     // of the code, that is looked for
	logic [KB-1:0]  Searches;  // that are to be done
	logic  Asking;             // whether the decoy is in play: before any code
	wire  at_end = At == AB'(CLASSES - 1);
	assign	done = State == GIVE && ordy && at_end;
	always_ff @(posedge clk) begin
		if(rst) begin
			State <= FILL;
			At    <= '0;
			Searches <= '0;
			Asking   <= 0;
		end
		else begin
			case(State)
			FILL:     if(svld && sclass == AB'(CLASSES - 1))  State <= START;
			START:    State <= KEEP > 1? SEEK : LOAD;
			SEEK:     State <= LOOK;
			LOOK:     State <= at_end? FOUND : SEEK;
			FOUND:    State <= Searches == KB'(1)? LOAD : SEEK;
			LOAD:     State <= PLACE;
			PLACE:    State <= READ;
			READ:     State <= COMPARE;
			COMPARE:  State <= Asking? LOAD : Bit[0]? GIVE : READ;
			default:  if(ordy)  State <= at_end? FILL : LOAD;
			endcase
			if(State == START)       Searches <= KB'(KEEP - 1);
			else if(State == FOUND)  Searches <= Searches - 1'b1;
			if(State == LOOK || (State == GIVE && ordy))  At <= at_end? '0 : At + 1'b1;
			else if(GATED && State == START)              At <= AB'(DECOY);
			else if(Asking && State == COMPARE)           At <= '0;
			if(State == START)         Asking <= GATED;
			else if(State == COMPARE)  Asking <= 0;
		end
	end

	logic signed [SCORE_WIDTH-1:0]  Score;   // of class At
	always_ff @(posedge clk)  Score <= Scores[At];

	//- The lowest score that is kept: each search finds the highest one below it ----------
	logic signed [SCORE_WIDTH-1:0]  Bound, Next;
	logic [AB-1:0]  BoundClass, NextClass;
	logic  Any;
	wire  above = Score > Bound || (Score == Bound && At <= BoundClass);  // or the bound itself
	always_ff @(posedge clk) begin
		if(State == START) begin
			Bound      <= Highest;
			BoundClass <= HighestClass;
		end
		else if(State == FOUND) begin
			Bound      <= Next;
			BoundClass <= NextClass;
		end
		if(State == START || State == FOUND)  Any <= 0;
		else if(State == LOOK && !above && (!Any || Score > Next)) begin
			Any       <= 1;
			Next      <= Score;
			NextClass <= At;
		end
	end

	//- A code, its highest bit first ------------------------------------------------------
	logic signed [VALUE_WIDTH-1:0]      Value;
	logic signed [THRESHOLD_WIDTH-1:0]  Threshold;
	logic [BITS-1:0]  Code;
	logic  Kept;
	logic  Gate;   // the label alone is given
	always_ff @(posedge clk) begin
		Threshold <= Thresholds[Code | Bit];
		if(State == PLACE) begin
			Value <= VALUE_WIDTH'(Score) - (RELATIVE? VALUE_WIDTH'(Highest) : VALUE_WIDTH'(0));
			Kept  <= above;
			Code  <= '0;
			Bit   <= Asking? '0 : BITS'(1) << (BITS - 1);
		end
		if(State == COMPARE) begin
			if(Asking)  Gate <= Value >= Threshold;
			if(Value >= Threshold)  Code <= Code | Bit;
			Bit <= Bit >> 1;
		end
	end
	assign	ovld = State == GIVE;
	assign	answered = done;
	assign	rejected = GATED && Gate;
	wire [BITS-1:0]  code = GATED && Gate? { BITS{At == HighestClass} } : Code;
	assign	odat = KEEP == 0? CODE_WIDTH'(code) : Kept? CODE_WIDTH'({ 1'b1, code }) : '0;

endmodule : answer_codes
