// Takes frames from the host apart (see fpga_flow/host/protocol.py):
//   A5 command sequence [image] crc32
// An image's bytes go on to the core as they come: a frame's length is known from its command, so
// that the core always gets whole images; whether the bytes were right is known only behind them
// and goes into the image's tag.
module divqat_receive #(
    parameter int BYTES = 1,   // of a beat
    parameter int IMAGE = 64,  // bytes of an image
    parameter int CRC_BITS = 8
) (
    input  logic               clk,
    input  logic               rst_n,
    input  logic               hold,           // take nothing: the core is in reset
    input  logic [7:0]         in_data,
    input  logic               in_valid,
    output logic               in_ready,
    output logic [8*BYTES-1:0] beat_data,
    output logic               beat_valid,
    input  logic               beat_ready,
    output logic               image_in,       // the last beat of an image enters the core
    output logic [8:0]         tag_data,       // {damaged, sequence}
    output logic               tag_valid,
    input  logic               tag_ready,
    output logic [7:0]         reply_type,
    output logic [7:0]         reply_sequence,
    output logic               reply_valid,
    input  logic               reply_ready
);
  localparam int C = $clog2(IMAGE + 1);
  localparam int B = $clog2(BYTES + 1);
  localparam logic [7:0] RUN = 8'h01, IDENTIFY = 8'h02, STATUS = 8'h03, RESET = 8'h04;

  typedef enum logic [2:0] {HUNT, COMMAND, SEQUENCE, PAYLOAD, CHECK, DECIDE} state_t;
  state_t state;
  logic [7:0] command, sequence_;
  logic [C-1:0] left;  // bytes left of the payload, less one
  logic [1:0] left_crc;
  logic [B-1:0] in_beat;  // bytes of the beat that are there
  logic beat_last, beat_room, crc_ready, take, good, known;
  logic [31:0] crc;

  assign beat_room = !beat_valid || beat_ready;
  // DECIDE takes nothing: it waits for the check and for whoever takes the frame's outcome.
  assign in_ready = !hold && crc_ready && state != DECIDE && (state != PAYLOAD || beat_room);
  assign take = in_valid && in_ready;

  divqat_crc32 #(
      .BITS(CRC_BITS)
  ) check (
      .clk,
      .clear(state == HUNT),
      .data(in_data),
      .valid(take && state != HUNT),
      .ready(crc_ready),
      .crc
  );

  assign good = crc == 32'hDEBB20E3;
  assign known = command == IDENTIFY || command == STATUS || command == RESET;
  assign tag_data = {!good, sequence_};
  assign tag_valid = state == DECIDE && crc_ready && command == RUN;
  assign reply_type = !good ? 8'hE1 : known ? {4'h8, command[3:0]} : 8'hE2;
  assign reply_sequence = sequence_;
  assign reply_valid = state == DECIDE && crc_ready && command != RUN;

  always_ff @(posedge clk)
    if (!rst_n) state <= HUNT;
    else
      case (state)
        HUNT: if (take && in_data == 8'hA5) state <= COMMAND;
        COMMAND:
        if (take) begin
          command <= in_data;
          state   <= SEQUENCE;
        end
        SEQUENCE:
        if (take) begin
          sequence_ <= in_data;
          left <= C'(IMAGE - 1);
          left_crc <= 2'd3;
          state <= command == RUN ? PAYLOAD : CHECK;
        end
        PAYLOAD:
        if (take) begin
          left <= left - 1'b1;
          if (left == 0) state <= CHECK;
        end
        CHECK:
        if (take) begin
          left_crc <= left_crc - 1'b1;
          if (left_crc == 0) state <= DECIDE;
        end
        default: if ((tag_valid && tag_ready) || (reply_valid && reply_ready)) state <= HUNT;
      endcase

  // The beat fills from above, the first byte ends lowest.
  always_ff @(posedge clk)
    if (!rst_n || hold) begin
      beat_valid <= 1'b0;
      in_beat <= '0;
    end else begin
      if (beat_ready) beat_valid <= 1'b0;
      if (take && state == PAYLOAD) begin
        in_beat <= in_beat == B'(BYTES - 1) ? '0 : in_beat + 1'b1;
        beat_valid <= in_beat == B'(BYTES - 1);
      end
    end
  always_ff @(posedge clk)
    if (take && state == PAYLOAD) begin
      beat_data <= (8 * BYTES)'({in_data, beat_data} >> 8);
      beat_last <= left == 0;
    end
  assign image_in = beat_valid && beat_ready && beat_last;
endmodule
