// Counts rejected images between core and link, raises the alarm, and masks what leaves.
//
// An image's codes (BEATS, in the order of the classes; with TOP1 one beat, the label) are taken, the
// image is counted, then its codes leave, masked by the state after it. The label is the lowest class
// of the highest code. Rejected: with FLAGGED the bit above the codes is set, which does not leave;
// else the label is REJECT_CLASS. The counter adds ADD or subtracts
// SUBTRACT, within 0 and ALARM_AT; the alarm at ALARM_AT stays, trust is earned at 0.
//
// Only rst_n, the power-up, brings the counter back to START: the host's RESET (core_rst_n) throws
// away an image under way, but not that it was counted.
module divqat_tripwire #(
    parameter int BYTES = 1,
    parameter int BEATS = 1,
    parameter int CODE_BITS = 4,
    parameter bit TOP1 = 0,
    parameter bit FLAGGED = 0,
    parameter int REJECT_CLASS = 0,
    parameter int ADD = 6,
    parameter int SUBTRACT = 1,
    parameter int ALARM_AT = 46,
    parameter int START = 26,
    parameter int POLICY = 0,       // 0 report, 1 labels only, 2 slow, 3 lock
    parameter int SLOW_CYCLES = 1   // that an image waits while it is slowed down
) (
    input  logic               clk,
    input  logic               rst_n,
    input  logic               core_rst_n,
    input  logic [8*BYTES-1:0] s_axis_tdata,
    input  logic               s_axis_tvalid,
    output logic               s_axis_tready,
    output logic [8*BYTES-1:0] m_axis_tdata,
    output logic               m_axis_tvalid,
    input  logic               m_axis_tready,
    output logic               alarm
);
  localparam int AB = BEATS > 1 ? $clog2(BEATS) : 1;
  localparam int CB = $clog2(ALARM_AT + 1);
  localparam int WB = SLOW_CYCLES > 1 ? $clog2(SLOW_CYCLES) : 1;
  localparam logic [1:0] FILL = 0, COUNT = 1, WAIT = 2, GIVE = 3;

  logic [1:0] state;
  logic [CODE_BITS-1:0] codes[BEATS];
  logic [CODE_BITS-1:0] best, code;
  logic [AB-1:0] at, label;
  logic [WB-1:0] waited;
  logic last, flag;
  assign last = at == AB'(BEATS - 1);
  assign code = s_axis_tdata[CODE_BITS-1:0];

  // The state of the user.
  logic [CB-1:0] counter, counted;
  logic [CB:0] raised;
  logic trusted, rejected, full;
  assign rejected = FLAGGED ? flag : TOP1 ? best == CODE_BITS'(REJECT_CLASS) : label == AB'(REJECT_CLASS);
  assign raised = {1'b0, counter} + (CB + 1)'(ADD);
  always_comb
    if (rejected) counted = ADD >= ALARM_AT || raised >= (CB + 1)'(ALARM_AT) ? CB'(ALARM_AT) : raised[CB-1:0];
    else counted = SUBTRACT >= ALARM_AT || counter <= CB'(SUBTRACT) ? '0 : counter - CB'(SUBTRACT);
  always_ff @(posedge clk)
    if (!rst_n) begin
      counter <= CB'(START);
      trusted <= START == 0;
      alarm <= 1'b0;
    end else if (core_rst_n && state == COUNT) begin
      counter <= counted;
      if (counted == '0) trusted <= 1'b1;
      if (counted == CB'(ALARM_AT)) alarm <= 1'b1;
    end
  assign full = POLICY == 0 || (trusted && !alarm);

  always_ff @(posedge clk)
    if (!core_rst_n) begin
      state <= FILL;
      at <= '0;
      waited <= '0;
    end else begin
      unique case (state)
        FILL: if (s_axis_tvalid && last) state <= COUNT;
        COUNT: state <= POLICY == 2 ? WAIT : GIVE;
        WAIT: begin
          waited <= waited + 1'b1;
          if (full || waited == WB'(SLOW_CYCLES - 1)) begin
            state <= GIVE;
            waited <= '0;
          end
        end
        default: if (m_axis_tready && last) state <= FILL;
      endcase
      if ((state == FILL && s_axis_tvalid) || (state == GIVE && m_axis_tready))
        at <= last ? '0 : at + 1'b1;
    end
  always_ff @(posedge clk)
    if (state == FILL && s_axis_tvalid) begin
      codes[at] <= code;
      flag <= s_axis_tdata[FLAGGED?CODE_BITS : 0];
      if (at == '0 || code > best) begin
        best <= code;
        label <= at;
      end
    end

  logic [CODE_BITS-1:0] shown;
  always_comb begin
    shown = codes[at];
    if (!TOP1 && (POLICY == 1 || POLICY == 3) && !full) shown = {CODE_BITS{at == label}};
    if (POLICY == 3 && alarm) shown = '0;
  end
  assign s_axis_tready = state == FILL;
  assign m_axis_tvalid = state == GIVE;
  assign m_axis_tdata = (8 * BYTES)'(shown);
endmodule
