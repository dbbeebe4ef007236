// The label of the highest score: score = sum * scale + shift, each class with its own of a file.
//
// CLASSES sums enter, one a beat, in the order of the labels; the label leaves. Of equal scores
// the lowest label wins. A word of the file is { shift, scale }, both two's complement.
module label_select #(
	int unsigned  CLASSES = 2,
	int unsigned  WIDTH = 8,         // bits of a sum
	bit           SIGNED = 1,
	int unsigned  SCALE_WIDTH = 18,
	int unsigned  SHIFT_WIDTH = 32,
	int unsigned  LABEL_WIDTH = 8,
	parameter     INIT_FILE = ""
)(
	input	logic  clk,
	input	logic  rst,

	input	logic [WIDTH-1:0]  idat,
	input	logic  ivld,
	output	logic  irdy,

	output	logic [LABEL_WIDTH-1:0]  odat,
	output	logic  ovld,
	input	logic  ordy
);

	localparam int unsigned  PRODUCT_WIDTH = WIDTH + 1 + SCALE_WIDTH;
	localparam int unsigned  SCORE_WIDTH = 1 + (PRODUCT_WIDTH > SHIFT_WIDTH? PRODUCT_WIDTH : SHIFT_WIDTH);

	logic [SHIFT_WIDTH+SCALE_WIDTH-1:0]  Mem[CLASSES];
	initial  $readmemh(INIT_FILE, Mem);

	// The pipeline stands still while a label waits to be taken.
	wire  en = !ovld || ordy;
	assign	irdy = en;

	logic [LABEL_WIDTH-1:0]  Class;   // of the sum that enters
	wire  last = Class == LABEL_WIDTH'(CLASSES - 1);
	always_ff @(posedge clk) begin
		if(rst)                Class <= '0;
		else if(ivld && irdy)  Class <= last? '0 : Class + 1'b1;
	end

	// Sum and word; product; score
	logic [2:0]  Vld;
	logic [LABEL_WIDTH-1:0]  Class1, Class2, Class3;
	logic signed [WIDTH:0]  Sum1;
	logic [SHIFT_WIDTH+SCALE_WIDTH-1:0]  Word1;
	logic signed [PRODUCT_WIDTH-1:0]  Product2;
	logic signed [SHIFT_WIDTH-1:0]    Shift2;
	logic signed [SCORE_WIDTH-1:0]    Score3;
	wire signed [SCALE_WIDTH-1:0]  scale1 = Word1[SCALE_WIDTH-1:0];
	always_ff @(posedge clk) begin
		if(en) begin
			Class1 <= Class;
			Sum1   <= $signed({ SIGNED && idat[WIDTH-1], idat });
			Word1  <= Mem[Class];

			Class2   <= Class1;
			Product2 <= Sum1 * scale1;
			Shift2   <= Word1[SCALE_WIDTH+:SHIFT_WIDTH];

			Class3 <= Class2;
			Score3 <= SCORE_WIDTH'(Product2) + SCORE_WIDTH'(Shift2);
		end
	end
	always_ff @(posedge clk) begin
		if(rst)      Vld <= '0;
		else if(en)  Vld <= { Vld[1:0], ivld };
	end

	logic signed [SCORE_WIDTH-1:0]  Best;
	logic [LABEL_WIDTH-1:0]  Label;
	wire  better = Class3 == '0 || Score3 > Best;
	wire  done = Vld[2] && Class3 == LABEL_WIDTH'(CLASSES - 1);
	always_ff @(posedge clk) begin
		if(en && Vld[2] && better) begin
			Best  <= Score3;
			Label <= Class3;
		end
	end
	always_ff @(posedge clk) begin
		if(rst)      ovld <= 0;
		else if(en)  ovld <= done;
	end
	assign	odat = Label;

endmodule : label_select
