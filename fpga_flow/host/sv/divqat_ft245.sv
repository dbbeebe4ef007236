// Master of FTDI's synchronous 245 FIFO (FT232H, FT2232H): 8 bits at `ft_clk`, 60 MHz from the
// FTDI chip. All outputs come from registers: TXE# and RXF# are valid too late in a cycle to be
// answered within it; and from complements of the pins, which are idle from power-up on. At a rising edge a byte has been read when RD# and RXF# are low, and written when WR#
// and TXE# are low.
module divqat_ft245 (
    input  logic       ft_clk,
    input  logic       ft_rst_n,
    input  logic       ft_rxf_n,
    input  logic       ft_txe_n,
    output logic       ft_rd_n,
    output logic       ft_wr_n,
    output logic       ft_oe_n,
    input  logic [7:0] ft_in,
    output logic [7:0] ft_out,
    output logic       ft_drive,
    input  logic       clk,
    input  logic       rst_n,
    output logic [7:0] in_data,
    output logic       in_valid,
    input  logic       in_ready,
    input  logic [7:0] out_data,
    input  logic       out_valid,
    output logic       out_ready
);
  typedef enum logic [2:0] {IDLE, TURN_IN, READ, TURN_OUT, WRITE} state_t;
  state_t state;
  logic [7:0] next_data;
  logic room, next_valid, next_ready, have, rd, wr, oe, got, written;
  logic [5:0] burst;

  assign {ft_rd_n, ft_wr_n, ft_oe_n} = ~{rd, wr, oe};
  assign got = rd && !ft_rxf_n;
  assign written = wr && !ft_txe_n;

  // RD# falls back two edges after the FIFO runs short: two more bytes may come.
  divqat_async_fifo #(
      .ROOM(4)
  ) from_host (
      .in_clk(ft_clk),
      .in_rst_n(ft_rst_n),
      .in_data(ft_in),
      .in_valid(got),
      .in_room(room),
      .out_clk(clk),
      .out_rst_n(rst_n),
      .out_data(in_data),
      .out_valid(in_valid),
      .out_ready(in_ready)
  );
  divqat_async_fifo to_host (
      .in_clk(clk),
      .in_rst_n(rst_n),
      .in_data(out_data),
      .in_valid(out_valid && out_ready),
      .in_room(out_ready),
      .out_clk(ft_clk),
      .out_rst_n(ft_rst_n),
      .out_data(next_data),
      .out_valid(next_valid),
      .out_ready(next_ready)
  );

  // The pins' register takes the next byte when it is empty or its byte has just been written. A
  // byte the host does not take yet is kept, and commands are read meanwhile.
  assign next_ready = state == WRITE && (!have || written);
  always_ff @(posedge ft_clk)
    if (!ft_rst_n) begin
      state <= IDLE;
      have  <= 1'b0;
      {rd, wr, oe, ft_drive} <= 4'b0000;
    end else begin
      burst <= burst + 1'b1;
      case (state)
        IDLE: begin
          burst <= '0;
          if ((have || next_valid) && !ft_txe_n) begin
            ft_drive <= 1'b1;
            state <= WRITE;
          end else if (!ft_rxf_n && room) begin
            oe <= 1'b1;
            state   <= TURN_IN;
          end
        end
        TURN_IN: begin
          rd <= 1'b1;
          state   <= READ;
        end
        READ:
        if (ft_rxf_n || !room || ((have || next_valid) && !ft_txe_n && (&burst))) begin
          rd <= 1'b0;
          state   <= TURN_OUT;
        end
        TURN_OUT: begin
          oe <= 1'b0;
          state   <= IDLE;
        end
        default:
        if (next_ready && next_valid) begin
          ft_out  <= next_data;
          wr <= 1'b1;
          have <= 1'b1;
        end else if (next_ready || (wr && ft_txe_n)) begin
          have <= !next_ready;
          wr <= 1'b0;
          ft_drive <= 1'b0;
          state <= IDLE;
        end else wr <= 1'b1;
      endcase
    end
endmodule
