"""One SystemVerilog module a layer, all with the same ports: clock, reset, stream in, stream out.

A fork has one ``tvalid`` and ``tready`` a reader; a sum of branches and a concatenation have
further streams in, ``s1_axis``, ``s2_axis``, ... Tops (the
network, slices of it, layers side by side) then need nothing but names and widths.
"""

from typing import Any

from fpga_flow.folding import shapes
from fpga_flow.rtl.answer_unit import OPS, answer_body
from fpga_flow.rtl.design import Stream
from fpga_flow.rtl.windows import grid_body, ours, window_body

_AXILITE = (
    ".s_axilite_AWVALID(1'b0), .s_axilite_AWADDR('0), .s_axilite_WVALID(1'b0), "
    ".s_axilite_WDATA('0), .s_axilite_WSTRB('0), .s_axilite_BREADY(1'b0), "
    ".s_axilite_ARVALID(1'b0), .s_axilite_ARADDR('0), .s_axilite_RREADY(1'b0)"
)


def cell_name(layer: str) -> str:
    """Name of the module around a layer."""
    return f"divqat_{layer}"


def weights_file(layer: str) -> str:
    """Name of the memory file with a layer's weights."""
    return f"{layer}_weights.dat"


def cell(record: dict[str, Any], weights_style: str = "auto") -> str:
    """The module around a layer.

    Args:
        record: one of ``hardware.generate``.
        weights_style: ``RAM_STYLE`` of its weights' memory.
    """
    name, op = record["name"], record["op"]
    others = [Stream(**one) for one in record.get("others", ())]
    taken, given = Stream(**record["input"]), Stream(**record["output"])
    if op == "Pool" and "grid" in record["pool"]:
        body = grid_body(name, taken, record["pool"]["grid"])
    elif "window" in record and ours(record["window"]):
        body = window_body(name, taken, given, record["window"])
    elif record.get("shift") is not None:
        body = _shift(taken, given, record["shift"])
    elif op == shapes.FORK:
        body = _fork(name, taken, record["copies"])
    elif op == shapes.JOIN:
        body = _join(name, taken, others[0], given)
    elif op == shapes.CONCAT:
        body = _concat(name, [taken, *others], given, record["pixels"])
    elif op == shapes.SUM:
        body = _sum(name, taken, given, record["pixels"])
    elif op == "Pool":
        body = _pool(name, taken, record["pool"]["window"])
    elif op in OPS:
        body = answer_body(record["unit"], taken, record["serial"])
    elif op == "StreamingDataWidthConverter":
        body = _converter(name, taken, given)
    else:
        logic = op in shapes.PRODUCTS and record["logic"]
        body = _generated(name, op, record.get("weights"), weights_style, logic=logic)
    readers = f"[{record['copies'] - 1}:0] " if "copies" in record else ""
    further = "".join(
        f"""
	input	wire [{8 * one.bytes - 1}:0]  s{k}_axis_tdata,
	input	wire  s{k}_axis_tvalid,
	output	wire  s{k}_axis_tready,"""
        for k, one in enumerate(others, 1)
    )
    return f"""
module {cell_name(name)} (
	input	wire  ap_clk,
	input	wire  ap_rst_n,
	input	wire [{8 * taken.bytes - 1}:0]  s_axis_tdata,
	input	wire  s_axis_tvalid,
	output	wire  s_axis_tready,{further}
	output	wire [{8 * given.bytes - 1}:0]  m_axis_tdata,
	output	wire {readers} m_axis_tvalid,
	input	wire {readers} m_axis_tready
);
{body}
endmodule
"""


def _pool(name: str, stream: Stream, window: int) -> str:
    bits = stream.lanes * stream.bits
    return f"""	wire [{bits - 1}:0]  odat;
	pool_max #(
		.PE({stream.lanes}), .WIDTH({stream.bits}), .WINDOW({window}), .SIGNED({stream.signed:d})
	) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat(s_axis_tdata[{bits - 1}:0]), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def _shift(taken: Stream, given: Stream, shift: int) -> str:
    """Codes of one scale as codes of a finer one: wires."""
    lines = []
    for lane in range(taken.lanes):
        value, first = _lane("s", taken, lane, given.bits, shift), lane * given.bits
        lines.append(f"	assign	m_axis_tdata[{first + given.bits - 1}:{first}] = {value};")
    used = given.lanes * given.bits
    if used < 8 * given.bytes:
        lines.append(f"	assign	m_axis_tdata[{8 * given.bytes - 1}:{used}] = '0;")
    lines += [
        "	assign	m_axis_tvalid = s_axis_tvalid;",
        "	assign	s_axis_tready = m_axis_tready;",
    ]
    return "\n".join(lines)


def _lane(port: str, stream: Stream, lane: int, bits: int, shift: int = 0) -> str:
    """A lane's integer, shifted to the left, in ``bits`` bits."""
    low, high = lane * stream.bits, (lane + 1) * stream.bits - 1
    fill = bits - stream.bits - shift
    sign = f"{port}_axis_tdata[{high}]" if stream.signed else "1'b0"
    parts = [f"{{{fill}{{{sign}}}}}"] if fill else []
    parts += [f"{port}_axis_tdata[{high}:{low}]"] + ([f"{shift}'b0"] if shift else [])
    return f"{{{', '.join(parts)}}}"


def _fork(name: str, stream: Stream, readers: int) -> str:
    bits = stream.lanes * stream.bits
    return f"""	wire [{bits - 1}:0]  odat;
	stream_fork #(.WIDTH({bits}), .N({readers})) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat(s_axis_tdata[{bits - 1}:0]), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def _join(name: str, first: Stream, second: Stream, given: Stream) -> str:
    a, b, out = (one.lanes * one.bits for one in (first, second, given))
    return f"""	wire [{out - 1}:0]  odat;
	stream_add #(
		.PE({given.lanes}), .O_WIDTH({given.bits}),
		.A_WIDTH({first.bits}), .A_SIGNED({first.signed:d}),
		.B_WIDTH({second.bits}), .B_SIGNED({second.signed:d})
	) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.adat(s_axis_tdata[{a - 1}:0]), .avld(s_axis_tvalid), .ardy(s_axis_tready),
		.bdat(s1_axis_tdata[{b - 1}:0]), .bvld(s1_axis_tvalid), .brdy(s1_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def _concat(name: str, streams: list[Stream], given: Stream, pixels: int) -> str:
    ports = ["s", *(f"s{k}" for k in range(1, len(streams)))]
    words = [
        ", ".join(_lane(port, one, lane, given.bits) for lane in reversed(range(one.lanes)))
        for port, one in zip(ports, streams, strict=True)
    ]
    beats = [one.beats // pixels for one in streams]
    bits = given.lanes * given.bits
    data = ", ".join(f"{{{word}}}" for word in reversed(words))
    valid, ready = (
        ", ".join(f"{port}_axis_{signal}" for port in reversed(ports))
        for signal in ("tvalid", "tready")
    )
    return f"""	wire [{bits - 1}:0]  odat;
	stream_concat #(
		.N({len(streams)}), .WIDTH({bits}), .MOST({max(beats)}),
		.BEATS({{{", ".join(f"32'd{count}" for count in reversed(beats))}}})
	) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat({{{data}}}), .ivld({{{valid}}}), .irdy({{{ready}}}),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def _sum(name: str, taken: Stream, given: Stream, pixels: int) -> str:
    bits, out = taken.lanes * taken.bits, given.lanes * given.bits
    return f"""	wire [{out - 1}:0]  odat;
	pool_sum #(
		.PE({taken.lanes}), .I_WIDTH({taken.bits}), .O_WIDTH({given.bits}),
		.SIGNED({taken.signed:d}), .FOLD({taken.beats // pixels}), .PIXELS({pixels})
	) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat(s_axis_tdata[{bits - 1}:0]), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def _converter(name: str, taken: Stream, given: Stream) -> str:
    return f"""	dwc_axi #(
		.IBITS({taken.lanes * taken.bits}), .OBITS({given.lanes * given.bits})
	) {name} (
		.ap_clk(ap_clk), .ap_rst_n(ap_rst_n),
		.s_axis_tdata(s_axis_tdata), .s_axis_tvalid(s_axis_tvalid), .s_axis_tready(s_axis_tready),
		.m_axis_tdata(m_axis_tdata), .m_axis_tvalid(m_axis_tvalid), .m_axis_tready(m_axis_tready)
	);"""


def _generated(
    name: str, op: str, weights: dict[str, int] | None, style: str, *, logic: bool
) -> str:
    # What FINN's wrapper calls the kind of its multipliers is 0 for none: see ``mvu.sv``.
    before, extra, setting = "", "", "#(.VERSION(0)) " if logic else ""
    if op in ("FMPadding", "Thresholding"):
        extra = f", {_AXILITE}"
    if op == "Thresholding":
        extra += ", .in1_V_TVALID(1'b0), .in1_V_TDATA('0)"
    if weights is not None:
        width = weights["width"]
        before = f"""	wire [{width - 1}:0]  wdat;
	wire  wvld, wrdy;
	memstream #(
		.SETS(1), .DEPTH({weights["depth"]}), .WIDTH({width}), .INIT_FILE("{weights_file(name)}"),
		.RAM_STYLE("{style}")
	) {name}_weights (
		.clk(ap_clk), .rst(!ap_rst_n),
		.config_ce(1'b0), .config_we(1'b0), .config_address('0), .config_d0('0),
		.config_rack(), .config_q0(),
		.sidx('0), .svld(1'b0), .srdy(),
		.odat(wdat), .ovld(wvld), .ordy(wrdy)
	);
	wire [{-(-width // 8) * 8 - 1}:0]  wdat_padded = wdat;
"""
        extra = (
            ", .ap_clk2x(ap_clk), "
            ".in1_V_TDATA(wdat_padded), .in1_V_TVALID(wvld), .in1_V_TREADY(wrdy)"
        )
    return f"""{before}	{name} {setting}{name} (
		.ap_clk(ap_clk), .ap_rst_n(ap_rst_n),
		.in0_V_TDATA(s_axis_tdata), .in0_V_TVALID(s_axis_tvalid), .in0_V_TREADY(s_axis_tready),
		.out0_V_TDATA(m_axis_tdata), .out0_V_TVALID(m_axis_tvalid), .out0_V_TREADY(m_axis_tready)
		{extra}
	);"""
