// Between a link of bytes and the core's AXI streams: frames, checks, counters, soft reset.
module divqat_link #(
    parameter int IN_BYTES = 1,
    parameter int IN_BEATS = 64,
    parameter int OUT_BYTES = 2,
    parameter int OUT_BEATS = 10,
    parameter int RX_DEPTH = 16,        // bytes that may wait for the core
    parameter int CRC_BITS = 8,
    parameter int TAGS = 16,            // images that may be in the core
    parameter bit LOSSY = 0,            // the link cannot wait: a byte without room is lost
    parameter logic [191:0] IDENTITY = 0  // the reply to IDENTIFY, its first byte lowest
) (
    input  logic                   clk,
    input  logic                   rst_n,
    input  logic [7:0]             rx_data,
    input  logic                   rx_valid,
    output logic                   rx_ready,
    input  logic                   rx_broken,  // the link lost a byte
    output logic [7:0]             tx_data,
    output logic                   tx_valid,
    input  logic                   tx_ready,
    output logic                   core_rst_n,
    input  logic                   alarm,      // of the tripwire
    output logic [8*IN_BYTES-1:0]  s_axis_tdata,
    output logic                   s_axis_tvalid,
    input  logic                   s_axis_tready,
    input  logic [8*OUT_BYTES-1:0] m_axis_tdata,
    input  logic                   m_axis_tvalid,
    output logic                   m_axis_tready,
    output logic [3:0]             lights      // {error seen, answer waits, image waits, up}
);
  logic [7:0] byte_data, reply_type, reply_sequence, info_data;
  logic [8:0] tag_in, tag_out;
  logic byte_valid, byte_ready, tag_in_valid, tag_in_ready, tag_valid, tag_ready;
  logic reply_valid, reply_ready, image_in, in_status, answered, damaged;
  logic [4:0] info_index;
  logic [15:0] info_hot;
  logic in_identity;
  assign in_identity = !reply_type[0];

  // Soft reset: the core, what is on its way to and from it, and the counters; not the link.
  // The reply to RESET waits until it is over.
  logic [5:0] reset_left;
  logic reset_done, in_reset;
  assign in_reset = reset_left != 0;
  always_ff @(posedge clk)
    if (!rst_n) begin
      reset_left <= '1;
      reset_done <= 1'b0;
    end else if (in_reset) begin
      reset_left <= reset_left - 1'b1;
      reset_done <= 1'b1;
    end else if (reply_valid && reply_type == 8'h84 && !reset_done) reset_left <= '1;
    else if (reply_valid && reply_ready) reset_done <= 1'b0;
    else if (!reply_valid) reset_done <= 1'b0;
  // A register of its own: it fans out over the whole core.
  always_ff @(posedge clk) core_rst_n <= rst_n && !in_reset;

  divqat_fifo #(
      .WIDTH(8),
      .DEPTH(RX_DEPTH)
  ) rx_fifo (
      .clk,
      .rst_n,
      .in_data(rx_data),
      .in_valid(rx_valid),
      .in_ready(rx_ready),
      .out_data(byte_data),
      .out_valid(byte_valid),
      .out_ready(byte_ready)
  );

  divqat_receive #(
      .BYTES(IN_BYTES),
      .IMAGE(IN_BYTES * IN_BEATS),
      .CRC_BITS(CRC_BITS)
  ) receive (
      .clk,
      .rst_n,
      .hold(!core_rst_n || in_reset),
      .in_data(byte_data),
      .in_valid(byte_valid),
      .in_ready(byte_ready),
      .beat_data(s_axis_tdata),
      .beat_valid(s_axis_tvalid),
      .beat_ready(s_axis_tready),
      .image_in,
      .tag_data(tag_in),
      .tag_valid(tag_in_valid),
      .tag_ready(tag_in_ready),
      .reply_type,
      .reply_sequence,
      .reply_valid,
      .reply_ready
  );

  divqat_fifo #(
      .WIDTH(9),
      .DEPTH(TAGS)
  ) tags (
      .clk,
      .rst_n(core_rst_n),
      .in_data(tag_in),
      .in_valid(tag_in_valid),
      .in_ready(tag_in_ready),
      .out_data(tag_out),
      .out_valid(tag_valid),
      .out_ready(tag_ready)
  );

  divqat_send #(
      .BYTES(OUT_BYTES),
      .BEATS(OUT_BEATS),
      .CRC_BITS(CRC_BITS)
  ) send (
      .clk,
      .rst_n(core_rst_n),
      .out_data(tx_data),
      .out_valid(tx_valid),
      .out_ready(tx_ready),
      .beat_data(m_axis_tdata),
      .beat_valid(m_axis_tvalid),
      .beat_ready(m_axis_tready),
      .tag_data(tag_out),
      .tag_valid(tag_valid),
      .tag_ready,
      .reply_type,
      .reply_sequence,
      .reply_valid(reply_valid && (reply_type != 8'h84 || (reset_done && !in_reset))),
      .reply_ready,
      .info_index,
      .info_hot,
      .info_data,
      .in_status,
      .answered,
      .damaged
  );

  // Counters. They rest while a status is read out, so that its bytes belong together.
  logic [23:0] images, latency;
  logic [31:0] stall_in, stall_out;
  logic [7:0] errors, flags;
  logic timing;
  always_ff @(posedge clk)
    if (!core_rst_n) begin
      images <= '0;
      stall_in <= '0;
      stall_out <= '0;
      timing <= 1'b0;
      errors <= '0;
      flags <= '0;
    end else begin
      if (answered) images <= images + 1'b1;
      if (image_in) timing <= 1'b1;
      else if (m_axis_tvalid) timing <= 1'b0;
      if (s_axis_tvalid && !s_axis_tready && !in_status) stall_in <= stall_in + 1'b1;
      if (m_axis_tvalid && !m_axis_tready && !in_status) stall_out <= stall_out + 1'b1;
      if (damaged && !(&errors)) errors <= errors + 1'b1;
      if (LOSSY && rx_valid && !rx_ready) flags[0] <= 1'b1;
      if (rx_broken) flags[1] <= 1'b1;
    end
  always_ff @(posedge clk)
    if (!core_rst_n || image_in) latency <= '0;
    else if (timing) latency <= latency + 1'b1;

  logic [16*8-1:0] status;
  assign status = {flags[7:3], alarm, flags[1:0], errors, stall_out, stall_in, latency, images};
  always_comb begin
    info_data = in_identity ? 8'(IDENTITY >> {info_index, 3'b000}) : 8'd0;
    for (int i = 0; i < 16; i++) info_data |= status[8*i+:8] & {8{info_hot[i]}};
  end

  assign lights = {|errors || |flags, m_axis_tvalid && !m_axis_tready,
                   s_axis_tvalid && !s_axis_tready, core_rst_n};
endmodule
