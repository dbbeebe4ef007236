// First in, first out, one clock; the memory is read synchronously, so that a deep one becomes
// block RAM and a shallow one distributed RAM. DEPTH is a power of two.
module divqat_fifo #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16
) (
    input  logic             clk,
    input  logic             rst_n,
    input  logic [WIDTH-1:0] in_data,
    input  logic             in_valid,
    output logic             in_ready,
    output logic [WIDTH-1:0] out_data,
    output logic             out_valid,
    input  logic             out_ready
);
  localparam int A = $clog2(DEPTH);
  logic [WIDTH-1:0] memory[DEPTH];
  logic [A:0] head, tail;  // one bit more than the address tells full from empty
  logic take;

  assign in_ready = (head ^ tail) != {1'b1, {A{1'b0}}};
  assign take = (head != tail) && (!out_valid || out_ready);

  always_ff @(posedge clk) begin
    if (in_valid && in_ready) memory[head[A-1:0]] <= in_data;
    if (take) out_data <= memory[tail[A-1:0]];
  end

  always_ff @(posedge clk)
    if (!rst_n) begin
      head <= '0;
      tail <= '0;
      out_valid <= 1'b0;
    end else begin
      if (in_valid && in_ready) head <= head + 1'b1;
      if (take) tail <= tail + 1'b1;
      if (take) out_valid <= 1'b1;
      else if (out_ready) out_valid <= 1'b0;
    end
endmodule
