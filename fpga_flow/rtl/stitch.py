"""Top modules: the chain of all nodes, and all layers side by side."""

from collections.abc import Iterable, Mapping, Sequence

from divqat_brevitas.errors import unknown_name
from fpga_flow.rtl.design import Node, Stream
from fpga_flow.rtl.design_settings import DesignSettings
from fpga_flow.rtl.layer_modules import cell_name

TOP = "divqat_top"
ISOLATED = "divqat_isolated"
FIFO = "StreamingFIFO"


def top(nodes: Sequence[Node]) -> str:
    """The module ``divqat_top``: ``nodes`` as a chain.

    With ``DIVQAT_TAPS`` defined it has outputs ``tap_<node>_tdata/_tvalid/_tready`` that show
    every node's output stream.
    """
    first, last = nodes[0].input, nodes[-1].output
    lines = [
        "module divqat_top (",
        "\tinput\twire  ap_clk,",
        "\tinput\twire  ap_rst_n,",
        f"\tinput\twire {_range(first)}  s_axis_tdata,",
        "\tinput\twire  s_axis_tvalid,",
        "\toutput\twire  s_axis_tready,",
        f"\toutput\twire {_range(last)}  m_axis_tdata,",
        "\toutput\twire  m_axis_tvalid,",
        "\tinput\twire  m_axis_tready",
        "`ifdef DIVQAT_TAPS",
        *(
            f"\t, output wire {_range(node.output)} tap_{node.name}_tdata, output wire "
            f"tap_{node.name}_tvalid, output wire tap_{node.name}_tready"
            for node in nodes
        ),
        "`endif",
        ");",
    ]
    before = "s_axis"
    for node in nodes:
        lines.append(f"\twire {_range(node.output)}  {node.name}_tdata;")
        lines.append(f"\twire  {node.name}_tvalid, {node.name}_tready;")
        lines.extend(_instance(node, before, node.name))
        before = node.name
    lines += [
        f"\tassign\tm_axis_tdata  = {before}_tdata;",
        f"\tassign\tm_axis_tvalid = {before}_tvalid;",
        f"\tassign\t{before}_tready = m_axis_tready;",
        "`ifdef DIVQAT_TAPS",
        *(
            f"\tassign tap_{node.name}_{signal} = {node.name}_{signal};"
            for node in nodes
            for signal in ("tdata", "tvalid", "tready")
        ),
        "`endif",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def isolated(nodes: Iterable[Node]) -> str:
    """The module ``divqat_isolated``: every layer for itself, to measure its own speed.

    Each is always offered zeros and always drained. Outputs ``<node>_taken`` and ``<node>_given``
    (32 bits) count the beats that went in and out. FIFOs are left out.
    """
    layers = [node for node in nodes if node.op != FIFO]
    lines = [
        "module divqat_isolated (",
        "\tinput\twire  ap_clk,",
        "\tinput\twire  ap_rst_n,",
        ",\n".join(
            f"\toutput\treg [31:0]  {node.name}_taken, {node.name}_given" for node in layers
        ),
        ");",
    ]
    for node in layers:
        name = node.name
        lines += [
            f"\twire {_range(node.input)}  {name}_s_tdata = '0;",
            f"\twire  {name}_s_tvalid = 1'b1, {name}_s_tready;",
            f"\twire {_range(node.output)}  {name}_tdata;",
            f"\twire  {name}_tvalid, {name}_tready = 1'b1;",
            *_instance(node, f"{name}_s", name),
            "\talways @(posedge ap_clk) begin",
            f"\t\tif(!ap_rst_n)  {name}_taken <= 0;",
            f"\t\telse if({name}_s_tready)  {name}_taken <= {name}_taken + 1;",
            f"\t\tif(!ap_rst_n)  {name}_given <= 0;",
            f"\t\telse if({name}_tvalid)  {name}_given <= {name}_given + 1;",
            "\tend",
        ]
    return "\n".join([*lines, "endmodule"]) + "\n"


def chain(layers: list[Node], settings: DesignSettings) -> tuple[Node, ...]:
    """``layers`` with FIFOs in front of, between and behind them.

    Raises:
        InputError: depths are given for a FIFO that does not exist.
    """
    nodes = [fifo("input_fifo", layers[0].input, settings.depth("input_fifo"))]
    for layer in layers:
        name = f"{layer.name}_fifo"
        nodes += [layer, fifo(name, layer.output, settings.depth(name))]
    names = {node.name for node in nodes if node.op == FIFO}
    if isinstance(settings.fifo_depths, Mapping):
        for name in settings.fifo_depths:
            if name not in names:
                raise unknown_name("FIFO", name, names)
    return tuple(node for node in nodes if node.op != FIFO or node.depth)


def fifo(name: str, stream: Stream, depth: int) -> Node:
    """A FIFO of a stream."""
    return Node(
        name=name,
        op=FIFO,
        layer=None,
        input=stream,
        output=stream,
        cycles=stream.beats,
        finn_cycles=stream.beats,
        pe=None,
        simd=None,
        depth=depth,
    )


def _instance(node: Node, source: str, sink: str) -> list[str]:
    if node.op == FIFO:
        bits = node.input.lanes * node.input.bits
        data = f"{sink}_tdata" if bits == 8 * node.input.bytes else f"{sink}_tdata[{bits - 1}:0]"
        lines = [
            f"\tfifo #(.DEPTH({node.depth}), .DATA_WIDTH({bits})) {node.name} (",
            "\t\t.clk(ap_clk), .rst(!ap_rst_n), .count(), .maxcount(),",
            f"\t\t.idat({source}_tdata[{bits - 1}:0]), .ivld({source}_tvalid), "
            f".irdy({source}_tready),",
            f"\t\t.odat({data}), .ovld({sink}_tvalid), .ordy({sink}_tready)",
            "\t);",
        ]
        if bits < 8 * node.input.bytes:
            lines.append(f"\tassign\t{sink}_tdata[{8 * node.input.bytes - 1}:{bits}] = '0;")
        return lines
    return [
        f"\t{cell_name(node.name)} {node.name} (",
        "\t\t.ap_clk(ap_clk), .ap_rst_n(ap_rst_n),",
        *(
            f"\t\t.{port}_axis_tdata({net}_tdata), .{port}_axis_tvalid({net}_tvalid), "
            f".{port}_axis_tready({net}_tready){end}"
            for port, net, end in (("s", source, ","), ("m", sink, ""))
        ),
        "\t);",
    ]


def _range(stream: Stream) -> str:
    return f"[{8 * stream.bytes - 1}:0]"
