// Puts frames for the host together (see fpga_flow/host/protocol.py):
//   5A type sequence [payload] crc32
// Answers to images come from the core in order, each with its tag; the core waits when the link
// is busy. Replies to other commands go between them.
module divqat_send #(
    parameter int BYTES = 2,   // of a beat
    parameter int BEATS = 10,  // of an answer
    parameter int CRC_BITS = 8
) (
    input  logic               clk,
    input  logic               rst_n,
    output logic [7:0]         out_data,
    output logic               out_valid,
    input  logic               out_ready,
    input  logic [8*BYTES-1:0] beat_data,
    input  logic               beat_valid,
    output logic               beat_ready,
    input  logic [8:0]         tag_data,
    input  logic               tag_valid,
    output logic               tag_ready,
    input  logic [7:0]         reply_type,
    input  logic [7:0]         reply_sequence,
    input  logic               reply_valid,
    output logic               reply_ready,
    output logic [4:0]         info_index,   // byte of the reply to IDENTIFY, 0 to 23, or
    output logic [15:0]        info_hot,     // of STATUS, 0 to 15, a bit each: a small mux
    input  logic [7:0]         info_data,
    output logic               in_status,    // a reply other than an answer is on its way
    output logic               answered,
    output logic               damaged       // a frame with a wrong check was reported
);
  localparam int B = $clog2(BYTES + 1);
  localparam int N = $clog2(BEATS + 1);

  typedef enum logic [2:0] {IDLE, SYNC, TYPE, SEQUENCE, ANSWER, INFO, DRAIN, CHECK} state_t;
  state_t state;
  logic [B-1:0] in_beat;
  logic [N-1:0] beat;
  logic [1:0] left_crc;
  logic [7:0] type_;
  logic [8*BYTES-1:0] shifted;
  logic sent, crc_ready, is_answer, last_byte, last_beat, last_info;
  logic [31:0] crc;

  // An answer's type and sequence come from its tag, a reply's from its request; both stay until
  // the frame has left.
  assign type_ = !is_answer ? reply_type : tag_data[8] ? 8'hE1 : 8'h81;
  assign shifted = beat_data >> {in_beat, 3'b000};
  assign last_byte = in_beat == B'(BYTES - 1);
  assign last_info = info_hot[15] || info_index == 5'd23;
  assign last_beat = beat == N'(BEATS - 1);

  always_comb begin
    case (state)
      SYNC: out_data = 8'h5A;
      TYPE: out_data = type_;
      SEQUENCE: out_data = is_answer ? tag_data[7:0] : reply_sequence;
      ANSWER: out_data = shifted[7:0];
      INFO: out_data = info_data;
      default: out_data = ~crc[7:0];
    endcase
    case (state)
      IDLE, DRAIN: out_valid = 1'b0;
      ANSWER: out_valid = beat_valid && crc_ready;
      default: out_valid = crc_ready;
    endcase
  end
  assign sent = out_valid && out_ready;

  divqat_crc32 #(
      .BITS(CRC_BITS)
  ) check (
      .clk,
      .clear(state == IDLE),
      // Fed with its own lowest byte, a CRC shifts by that byte: the next one comes down.
      .data(state == CHECK ? crc[7:0] : out_data),
      .valid(sent && state != SYNC),
      .ready(crc_ready),
      .crc
  );

  assign beat_ready = (state == ANSWER && sent && last_byte) || state == DRAIN;
  assign tag_ready = state == CHECK && sent && left_crc == 0 && is_answer;
  assign reply_ready = state == CHECK && sent && left_crc == 0 && !is_answer;
  assign in_status = state != IDLE && !is_answer;
  assign answered = tag_ready && !tag_data[8];
  assign damaged = sent && state == TYPE && type_[7:4] == 4'hE;

  always_ff @(posedge clk)
    if (!rst_n) state <= IDLE;
    else
      case (state)
        IDLE: begin
          in_beat <= '0;
          beat <= '0;
          left_crc <= 2'd3;
          is_answer <= !reply_valid;
          if (reply_valid) state <= SYNC;
          else if (tag_valid && beat_valid) state <= tag_data[8] ? DRAIN : SYNC;
        end
        // A damaged image's answer is thrown away.
        DRAIN:
        if (beat_valid) begin
          beat <= beat + 1'b1;
          if (last_beat) state <= SYNC;
        end
        SYNC: if (sent) state <= TYPE;
        TYPE: if (sent) state <= SEQUENCE;
        SEQUENCE:
        if (sent) begin
          info_index <= '0;
          info_hot <= {15'd0, type_[0]};
          case (type_)
            8'h81: state <= ANSWER;
            8'h82, 8'h83: state <= INFO;
            default: state <= CHECK;
          endcase
        end
        ANSWER:
        if (sent) begin
          in_beat <= last_byte ? '0 : in_beat + 1'b1;
          if (last_byte) begin
            beat <= beat + 1'b1;
            if (last_beat) state <= CHECK;
          end
        end
        INFO:
        if (sent) begin
          info_index <= info_index + 1'b1;
          info_hot <= info_hot << 1;
          if (last_info) state <= CHECK;
        end
        default:
        if (sent) begin
          left_crc <= left_crc - 1'b1;
          if (left_crc == 0) state <= IDLE;
        end
      endcase
endmodule
