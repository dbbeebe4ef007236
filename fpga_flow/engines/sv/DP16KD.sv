// A block RAM of the ECP5 for simulation, as far as yosys uses it: two ports of 1, 2, 4, 9, 18 bits
// or one of 36 for writing and one for reading; no output registers. Settings beyond that stop
// the simulation.
//
// Bits read where the other port writes them at the same time are undefined in the device:
// the model gives the inverted old bits, so that a netlist that depends on them doesn't pass.
module DP16KD (
  input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
  DIA4, DIA3, DIA2, DIA1, DIA0,
  input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
  output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
  DOA4, DOA3, DOA2, DOA1, DOA0,
  input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
  DIB4, DIB3, DIB2, DIB1, DIB0,
  input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
  input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
  DOB4, DOB3, DOB2, DOB1, DOB0
);
  parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18;
  parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG";
  parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC";
  parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000";
  parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL";
  parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB";
  parameter GSR = "AUTO";
  parameter WID = 0;
  parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0,
      INITVAL_04 = 0, INITVAL_05 = 0, INITVAL_06 = 0, INITVAL_07 = 0;
  parameter [319:0] INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0,
      INITVAL_0C = 0, INITVAL_0D = 0, INITVAL_0E = 0, INITVAL_0F = 0;
  parameter [319:0] INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 = 0, INITVAL_13 = 0,
      INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0;
  parameter [319:0] INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0,
      INITVAL_1C = 0, INITVAL_1D = 0, INITVAL_1E = 0, INITVAL_1F = 0;
  parameter [319:0] INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0,
      INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0, INITVAL_27 = 0;
  parameter [319:0] INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0,
      INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0;
  parameter [319:0] INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0,
      INITVAL_34 = 0, INITVAL_35 = 0, INITVAL_36 = 0, INITVAL_37 = 0;
  parameter [319:0] INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0,
      INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0;

  if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG") $error("DP16KD: output register");
  if (CLKAMUX == "INV" || CLKBMUX == "INV") $error("DP16KD: inverted clock");
  if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000") $error("DP16KD: chip select");

  localparam bit WIDE = DATA_WIDTH_A == 36 || DATA_WIDTH_B == 36;

  // 1024 words of 18 bits; the initial values hold 16 words of 20 each, 2 bits unused.
  logic [17:0] words[1024];
  localparam logic [64*320-1:0] INIT = {
    INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39,
    INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32,
    INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B,
    INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
    INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D,
    INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
    INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F,
    INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
    INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01,
    INITVAL_00
  };
  initial for (int i = 0; i < 1024; i++) words[i] = INIT[20*i +: 18];

  wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
  wire [17:0] dia = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
  wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};

  // Bits of a word that a port of some width touches at an address, byte enables included.
  function automatic logic [17:0] mask(input int width, input logic [13:0] address);
    case (width)
      1: mask = 18'(1) << (9 * address[3] + address[2:0]);
      2: mask = 18'(3) << (9 * address[3] + {address[2:1], 1'b0});
      4: mask = 18'(15) << (9 * address[3] + {address[2], 2'b0});
      9: mask = address[3] ? 18'h3fe00 : 18'h001ff;
      default: mask = {{9{address[1]}}, {9{address[0]}}};
    endcase
  endfunction

  // A port's data, aligned to where it stands in the word, and back.
  function automatic int offset(input int width, input logic [13:0] address);
    case (width)
      1: offset = 9 * address[3] + address[2:0];
      2: offset = 9 * address[3] + {address[2:1], 1'b0};
      4: offset = 9 * address[3] + {address[2], 2'b0};
      9: offset = 9 * address[3];
      default: offset = 0;
    endcase
  endfunction

  function automatic logic [17:0] narrow(input int width, input logic [17:0] value);
    narrow = width >= 18 ? value : value & 18'((1 << width) - 1);
  endfunction

  logic [17:0] qa = 0, qb = 0;
  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = qa;
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0} = qb;

  if (WIDE) begin : wide
    // Port A writes, port B reads; the second word is on the other port's pins.
    wire [9:0] wa = DATA_WIDTH_A == 36 ? {ada[13:5], 1'b0} : ada[13:4];
    wire [9:0] wb = DATA_WIDTH_B == 36 ? {adb[13:5], 1'b0} : adb[13:4];
    wire write = CEA && WEA;
    // Bits written of that word and of its neighbour. yosys holds WEA high and gates the byte
    // enables: a full FIFO reads where nothing is written, and gets what stands there.
    wire [17:0] low = write ? mask(DATA_WIDTH_A, ada) : 18'b0;
    wire [17:0] high = write && DATA_WIDTH_A == 36 ? {{9{ada[3]}}, {9{ada[2]}}} : 18'b0;
    function automatic logic [17:0] seen(input logic [9:0] word);
      seen = words[word] ^ (word == wa ? low : word == (wa | 10'd1) ? high : 18'b0);
    endfunction
    wire [17:0] placed = dia << offset(DATA_WIDTH_A, ada);
    always_ff @(posedge CLKA) if (write) begin
      words[wa] <= words[wa] & ~low | placed & low;
      if (DATA_WIDTH_A == 36) words[wa | 10'd1] <= words[wa | 10'd1] & ~high | dib & high;
    end
    always_ff @(posedge CLKB)
      if (RSTB) {qb, qa} <= 0;
      else if (CEB) begin
        if (DATA_WIDTH_B == 36) {qb, qa} <= {seen(wb | 10'd1), seen(wb)};
        else qb <= narrow(DATA_WIDTH_B, seen(wb) >> offset(DATA_WIDTH_B, adb));
      end
  end else begin : dual
    wire [17:0] ma = mask(DATA_WIDTH_A, ada), mb = mask(DATA_WIDTH_B, adb);
    wire write_a = CEA && WEA, write_b = CEB && WEB;
    wire same = ada[13:4] == adb[13:4];
    wire [17:0] new_a = dia << offset(DATA_WIDTH_A, ada), new_b = dib << offset(DATA_WIDTH_B, adb);
    wire [17:0] old_a = words[ada[13:4]] ^ (same && write_b ? mb : 18'b0);
    wire [17:0] old_b = words[adb[13:4]] ^ (same && write_a ? ma : 18'b0);
    always_ff @(posedge CLKA) begin
      if (write_a) words[ada[13:4]] <= words[ada[13:4]] & ~ma | new_a & ma;
      if (RSTA) qa <= 0;
      else if (CEA && !(WEA && WRITEMODE_A == "NORMAL"))
        qa <= narrow(DATA_WIDTH_A, (WEA && WRITEMODE_A == "WRITETHROUGH" ?
          old_a & ~ma | new_a & ma : old_a) >> offset(DATA_WIDTH_A, ada));
    end
    always_ff @(posedge CLKB) begin
      if (write_b) words[adb[13:4]] <= words[adb[13:4]] & ~mb | new_b & mb;
      if (RSTB) qb <= 0;
      else if (CEB && !(WEB && WRITEMODE_B == "NORMAL"))
        qb <= narrow(DATA_WIDTH_B, (WEB && WRITEMODE_B == "WRITETHROUGH" ?
          old_b & ~mb | new_b & mb : old_b) >> offset(DATA_WIDTH_B, adb));
    end
  end
endmodule
