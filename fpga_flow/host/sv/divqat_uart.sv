// Serial line, 8 data bits, no parity, 1 stop bit, DIVIDER clock cycles a bit (at least 4).
// A received byte is offered for one cycle only: what follows has to take it.
module divqat_uart #(
    parameter int DIVIDER = 25
) (
    input  logic       clk,
    input  logic       rst_n,
    input  logic       rx,
    output logic       tx,
    output logic [7:0] in_data,
    output logic       in_valid,
    output logic       in_broken,  // a stop bit was missing: the byte is dropped
    input  logic [7:0] out_data,
    input  logic       out_valid,
    output logic       out_ready
);
  localparam int W = $clog2(DIVIDER + 1);

  // Two registers against metastability, the third is the sample.
  logic [2:0] line;
  always_ff @(posedge clk) line <= {line[1:0], rx};

  // Receiver: half a bit behind the falling edge, then bit by bit; the byte shifts in from above.
  logic [W-1:0] wait_rx;
  logic [3:0] bit_rx;  // 0 idle, 10 start, 9..2 data, 1 stop
  always_ff @(posedge clk) begin
    in_valid  <= 1'b0;
    in_broken <= 1'b0;
    if (!rst_n) bit_rx <= '0;
    else if (bit_rx == 0) begin
      wait_rx <= W'((DIVIDER - 1) / 2);
      if (!line[2]) bit_rx <= 4'd10;
    end else if (wait_rx != 0) wait_rx <= wait_rx - 1'b1;
    else begin
      wait_rx <= W'(DIVIDER - 1);
      bit_rx  <= bit_rx - 1'b1;
      if (bit_rx == 4'd10) begin
        if (line[2]) bit_rx <= '0;  // a glitch, no start bit
      end else if (bit_rx == 4'd1) begin
        in_valid  <= line[2];
        in_broken <= !line[2];
      end else in_data <= {line[2], in_data[7:1]};
    end
  end

  // Sender: the line is the lowest bit of the shift register, which holds the complement: a line
  // that is idle from power-up on.
  logic [W-1:0] wait_tx;
  logic [3:0] bit_tx;
  logic [8:0] shift;
  assign tx = !shift[0];
  assign out_ready = bit_tx == 0;
  always_ff @(posedge clk)
    if (!rst_n) begin
      bit_tx <= '0;
      shift  <= '0;
    end else if (bit_tx == 0) begin
      wait_tx <= W'(DIVIDER - 1);
      if (out_valid) begin
        shift  <= {~out_data, 1'b1};
        bit_tx <= 4'd10;
      end
    end else if (wait_tx != 0) wait_tx <= wait_tx - 1'b1;
    else begin
      wait_tx <= W'(DIVIDER - 1);
      shift   <= {1'b0, shift[8:1]};
      bit_tx  <= bit_tx - 1'b1;
    end
endmodule
