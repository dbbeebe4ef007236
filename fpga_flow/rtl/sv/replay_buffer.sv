// Sequences of LEN beats, each given REP times.
//
// A stand-in for FINN's module of the same name and ports; here no reset of data, and no copy of
// what the source holds anyway: a sequence of one beat stays with the source until its last turn.
module replay_buffer #(
	int unsigned  LEN,
	int unsigned  REP,
	int unsigned  W
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [W-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [W-1:0]  odat,
	output	logic  olast,   // last beat of a sequence
	output	logic  ofin,    // ... of its last turn
	output	logic  ovld,
	input	logic  ordy
);

	// Position of the beat that is read, and its turn
	wire  step;
	wire  last_beat, last_turn;
	if(LEN == 1)  assign  last_beat = 1;
	else begin : genBeat
		logic [$clog2(LEN)-1:0]  Beat;
		logic  Last;
		always_ff @(posedge clk) begin
			if(rst) begin
				Beat <= '0;
				Last <= 0;
			end
			else if(step) begin
				Beat <= Last? '0 : Beat + 1'b1;
				Last <= Beat == $clog2(LEN)'(LEN - 2) && !Last;
			end
		end
		assign	last_beat = Last;
	end : genBeat
	if(REP == 1)  assign  last_turn = 1;
	else begin : genTurn
		logic [$clog2(REP)-1:0]  Turn;
		logic  Last;
		always_ff @(posedge clk) begin
			if(rst) begin
				Turn <= '0;
				Last <= 0;
			end
			else if(step && last_beat) begin
				Turn <= Last? '0 : Turn + 1'b1;
				Last <= Turn == $clog2(REP)'(REP - 2) && !Last;
			end
		end
		assign	last_turn = Last;
	end : genTurn

	if(LEN == 1 || REP == 1) begin : genDirect
		assign	step  = ivld && ordy;
		assign	odat  = idat;
		assign	ovld  = ivld;
		assign	olast = last_beat;
		assign	ofin  = last_beat && last_turn;
		assign	irdy  = ordy && (REP == 1 || last_turn);
	end : genDirect
	else begin : genBuffer
		// A ring: what was read for the last time is free for the next sequence.
		localparam int unsigned  AB = $clog2(LEN);
		localparam  STYLE = AB >= 5? "block" : "distributed";
		(* ram_style = STYLE, no_rw_check *)
		logic [W-1:0]  Mem[2**AB];
		logic [AB:0]  WP, RP, FP;   // next written, read, freed; the highest bit counts rounds
		logic [W-1:0]  ODat;
		logic  OVld, OLast, OFin;

		assign	irdy = (WP ^ FP) != (AB+1)'(1 << AB);
		wire  wr = ivld && irdy;
		wire  rd = !OVld || ordy;
		wire  some = RP != WP;
		assign	step = rd && some;
		always_ff @(posedge clk) begin
			if(wr)    Mem[WP[AB-1:0]] <= idat;
			if(step)  ODat <= Mem[RP[AB-1:0]];
		end
		always_ff @(posedge clk) begin
			if(step) begin
				OLast <= last_beat;
				OFin  <= last_beat && last_turn;
			end
		end
		always_ff @(posedge clk) begin
			if(rst) begin
				WP <= '0;
				RP <= '0;
				FP <= '0;
				OVld <= 0;
			end
			else begin
				if(wr)  WP <= WP + 1'b1;
				if(rd)  OVld <= some;
				if(step) begin
					RP <= last_beat && !last_turn? RP - (AB+1)'(LEN-1) : RP + 1'b1;
					if(last_turn)  FP <= FP + 1'b1;
				end
			end
		end
		assign	odat  = ODat;
		assign	ovld  = OVld;
		assign	olast = OLast;
		assign	ofin  = OFin;
	end : genBuffer

endmodule : replay_buffer
