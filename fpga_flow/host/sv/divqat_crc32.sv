// CRC-32 (IEEE 802.3, reflected) of a stream of bytes, BITS bits a clock cycle.
// A byte is taken when `valid && ready`; `crc` is right when `ready`. The sender appends ~crc,
// lowest byte first; a receiver that feeds those four bytes too ends at the constant 32'hDEBB20E3.
module divqat_crc32 #(
    parameter int BITS = 8  // 1, 2, 4 or 8
) (
    input  logic        clk,
    input  logic        clear,
    input  logic [7:0]  data,
    input  logic        valid,
    output logic        ready,
    output logic [31:0] crc
);
  function automatic logic [31:0] step(input logic [31:0] old, input logic [BITS-1:0] bits);
    logic [31:0] c;
    c = old;
    for (int i = 0; i < BITS; i++) c = (c >> 1) ^ ((c[0] ^ bits[i]) ? 32'hEDB88320 : 32'h0);
    return c;
  endfunction

  generate
    if (BITS == 8) begin : g_whole
      assign ready = 1'b1;
      always_ff @(posedge clk)
        if (clear) crc <= '1;
        else if (valid) crc <= step(crc, data);
    end else begin : g_parts
      localparam int STEPS = 8 / BITS;
      logic [STEPS-1:0] left;  // one bit for each step still to do
      logic [7:0] rest;
      assign ready = !left[0];
      always_ff @(posedge clk)
        if (clear) begin
          crc  <= '1;
          left <= '0;
        end else if (left[0]) begin
          crc  <= step(crc, rest[BITS-1:0]);
          rest <= rest >> BITS;
          left <= left >> 1;
        end else if (valid) begin
          rest <= data;
          left <= '1;
        end
    end
  endgenerate
endmodule
