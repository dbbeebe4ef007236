// First in, first out, from one clock to another: Gray-coded pointers, each through two registers
// into the other clock. DEPTH is a power of two. `in_room` is true while at least ROOM more words
// fit, for a writer that learns a cycle or two late that it has to stop. The output is a register.
module divqat_async_fifo #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 32,
    parameter int ROOM  = 1
) (
    input  logic             in_clk,
    input  logic             in_rst_n,
    input  logic [WIDTH-1:0] in_data,
    input  logic             in_valid,
    output logic             in_room,
    input  logic             out_clk,
    input  logic             out_rst_n,
    output logic [WIDTH-1:0] out_data,
    output logic             out_valid,
    input  logic             out_ready
);
  localparam int A = $clog2(DEPTH);
  logic [WIDTH-1:0] memory[DEPTH];

  function automatic logic [A:0] gray(input logic [A:0] binary);
    return binary ^ (binary >> 1);
  endfunction
  function automatic logic [A:0] binary(input logic [A:0] coded);
    logic [A:0] b;
    b = coded;
    for (int i = 1; i <= A; i++) b = b ^ (coded >> i);
    return b;
  endfunction

  // Writer's side.
  logic [A:0] head, head_gray, tail_there, tail_meta, used;
  assign used = head - binary(tail_there);
  assign in_room = used <= (A + 1)'(DEPTH - ROOM);
  always_ff @(posedge in_clk) if (in_valid) memory[head[A-1:0]] <= in_data;
  always_ff @(posedge in_clk)
    if (!in_rst_n) begin
      head <= '0;
      head_gray <= '0;
      tail_meta <= '0;
      tail_there <= '0;
    end else begin
      if (in_valid) begin
        head <= head + 1'b1;
        head_gray <= gray(head + 1'b1);
      end
      tail_meta  <= tail_gray;
      tail_there <= tail_meta;
    end

  // Reader's side.
  logic [A:0] tail, tail_gray, head_there, head_meta;
  logic take;
  assign take = (head_there != tail_gray) && (!out_valid || out_ready);
  always_ff @(posedge out_clk) if (take) out_data <= memory[tail[A-1:0]];
  always_ff @(posedge out_clk)
    if (!out_rst_n) begin
      tail <= '0;
      tail_gray <= '0;
      head_meta <= '0;
      head_there <= '0;
      out_valid <= 1'b0;
    end else begin
      if (take) begin
        tail <= tail + 1'b1;
        tail_gray <= gray(tail + 1'b1);
        out_valid <= 1'b1;
      end else if (out_ready) out_valid <= 1'b0;
      head_meta  <= head_gray;
      head_there <= head_meta;
    end
endmodule
