// A synchronous reset: some cycles long from power-up, and whenever `ready` (asynchronous) falls.
module divqat_reset (
    input  logic clk,
    input  logic ready,
    output logic rst_n
);
  logic [1:0] seen = 2'b00;
  logic [4:0] count = 5'd0;
  logic up = 1'b0;
  assign rst_n = up;
  always_ff @(posedge clk) begin
    seen <= {seen[0], ready};
    if (!seen[1]) count <= '0;
    else if (!(&count)) count <= count + 1'b1;
    up <= &count;
  end
endmodule
