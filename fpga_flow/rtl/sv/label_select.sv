// The label of the highest score: score = sum * scale + shift, each class with its own of a file.
//
// CLASSES sums enter, one a beat, in the order of the labels; the label leaves. Of equal scores
// the lowest label wins. The file, and how long a sum takes: see class_score.
//
// With REJECT the last sum is of no class: where its score is higher than every class's, the image
// is rejected. Then INSTEAD leaves, or with KEYED the word of SHOWN_FILE at { label, runner-up }, the
// two highest classes.
module label_select #(
	int unsigned  CLASSES = 2,
	int unsigned  WIDTH = 8,         // bits of a sum
	bit           SIGNED = 1,
	int unsigned  SCALE_WIDTH = 18,
	int unsigned  SHIFT_WIDTH = 32,
	bit           SERIAL = 0,
	int unsigned  LABEL_WIDTH = 8,
	bit           REJECT = 0,
	int unsigned  INSTEAD = 0,
	bit           KEYED = 0,
	parameter     SHOWN_FILE = "",   // 2^(2*LABEL_WIDTH) words
	parameter     INIT_FILE = ""
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [LABEL_WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy,

	// For what counts rejections: the answer to an image leaves, and it was rejected.
	output	logic  answered,
	output	logic  rejected
);

	localparam int unsigned  PRODUCT_WIDTH = WIDTH + 1 + SCALE_WIDTH;
	localparam int unsigned  SCORE_WIDTH = 1 + (PRODUCT_WIDTH > SHIFT_WIDTH? PRODUCT_WIDTH : SHIFT_WIDTH);
	localparam int unsigned  AB = CLASSES > 1? $clog2(CLASSES) : 1;

	// No score is taken while a label waits to be.
	wire  en = !ovld || ordy;
	wire signed [SCORE_WIDTH-1:0]  score;
	wire [AB-1:0]  sclass;
	wire  svld;
	class_score #(
		.CLASSES(CLASSES), .WIDTH(WIDTH), .SIGNED(SIGNED), .SCALE_WIDTH(SCALE_WIDTH),
		.SHIFT_WIDTH(SHIFT_WIDTH), .SERIAL(SERIAL), .INIT_FILE(INIT_FILE)
	) class_score (
		.clk, .rst, .idat, .ivld, .irdy, .ilast(), .score, .sclass, .svld, .srdy(en)
	);

	logic signed [SCORE_WIDTH-1:0]  Best;
	logic [AB-1:0]  Label;
	logic  Rejected;
	wire  better = sclass == '0 || score > Best;
	wire  last = sclass == AB'(CLASSES - 1);
	wire  counts = en && svld && !(REJECT && last);   // the score of a class
	always_ff @(posedge clk) begin
		if(counts && better) begin
			Best  <= score;
			Label <= sclass;
		end
		if(en && svld)  Rejected <= REJECT && better;
	end
	assign	answered = ovld && ordy;

	if(!KEYED) begin : genPlain
		always_ff @(posedge clk) begin
			if(rst)      ovld <= 0;
			else if(en)  ovld <= svld && last;
		end
		assign	rejected = Rejected;
		assign	odat = Rejected? LABEL_WIDTH'(INSTEAD) : LABEL_WIDTH'(Label);
	end : genPlain
	else begin : genKeyed
		logic [LABEL_WIDTH-1:0]  Shown[1 << (2 * LABEL_WIDTH)];
		initial  $readmemh(SHOWN_FILE, Shown);

		logic signed [SCORE_WIDTH-1:0]  Next;   // second highest
		logic [LABEL_WIDTH-1:0]  RunnerUp;
		always_ff @(posedge clk) begin
			if(counts) begin
				if(better) begin
					Next     <= Best;
					RunnerUp <= LABEL_WIDTH'(Label);
				end
				else if(sclass == AB'(1) || score > Next) begin
					Next     <= score;
					RunnerUp <= LABEL_WIDTH'(sclass);
				end
			end
		end

		logic  Full;    // label and runner-up are an image's
		logic  Rejected2;
		logic [LABEL_WIDTH-1:0]  Label2, Word;
		always_ff @(posedge clk) begin
			if(rst) begin
				Full <= 0;
				ovld <= 0;
			end
			else if(en) begin
				Full <= svld && last;
				ovld <= Full;
			end
		end
		always_ff @(posedge clk) begin
			if(en) begin
				Word      <= Shown[{ LABEL_WIDTH'(Label), RunnerUp }];
				Label2    <= LABEL_WIDTH'(Label);
				Rejected2 <= Rejected;
			end
		end
		assign	rejected = Rejected2;
		assign	odat = Rejected2? Word : Label2;
	end : genKeyed

endmodule : label_select
