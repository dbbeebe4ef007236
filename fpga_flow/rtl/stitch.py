"""Top modules: the network of all nodes, and all layers side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from divqat_brevitas.errors import unknown_name
from fpga_flow.folding.branches import INPUT, Shortcut
from fpga_flow.rtl.design import Node, Stream
from fpga_flow.rtl.design_settings import DesignSettings
from fpga_flow.rtl.layer_modules import cell_name

TOP = "divqat_top"
ISOLATED = "divqat_isolated"
FIFO = "StreamingFIFO"


def top(nodes: Sequence[Node]) -> str:
    """The module ``divqat_top``: ``nodes``, each reading its sources.

    With ``DIVQAT_TAPS`` defined it has outputs ``tap_<node>_tdata/_tvalid/_tready`` that show
    every node's output stream; a fork's are those of its input.
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
    before = INPUT
    for node in nodes:
        for port in dict.fromkeys((node.name, *node.ports)):
            lines.append(f"\twire {_range(node.output)}  {port}_tdata;")
            lines.append(f"\twire  {port}_tvalid, {port}_tready;")
        nets = ["s_axis" if port == INPUT else port for port in node.sources or (before,)]
        lines.extend(_instance(node, nets))
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
            *_isolated_others(node),
            *_isolated_outputs(node),
            *_instance(node, [f"{name}_s", *(f"{name}_s{k}" for k in _numbers(node))]),
            "\talways @(posedge ap_clk) begin",
            f"\t\tif(!ap_rst_n)  {name}_taken <= 0;",
            f"\t\telse if({name}_s_tready)  {name}_taken <= {name}_taken + 1;",
            f"\t\tif(!ap_rst_n)  {name}_given <= 0;",
            f"\t\telse if({name}_tvalid)  {name}_given <= {name}_given + 1;",
            "\tend",
        ]
    return "\n".join([*lines, "endmodule"]) + "\n"


def _numbers(node: Node) -> range:
    """Of its further inputs: ``s1_axis``, ``s2_axis``, ..."""
    return range(1, 1 + len(node.others))


def _isolated_others(node: Node) -> list[str]:
    lines = []
    for k, stream in zip(_numbers(node), node.others, strict=True):
        lines.append(f"\twire {_range(stream)}  {node.name}_s{k}_tdata = '0;")
        lines.append(f"\twire  {node.name}_s{k}_tvalid = 1'b1, {node.name}_s{k}_tready;")
    return lines


def _isolated_outputs(node: Node) -> list[str]:
    lines = []
    for port in dict.fromkeys((node.name, *node.ports)):
        taken = "" if node.copies > 1 and port == node.name else " = 1'b1"
        lines.append(f"\twire {_range(node.output)}  {port}_tdata;")
        lines.append(f"\twire  {port}_tvalid, {port}_tready{taken};")
    return lines


def stitched(
    layers: list[Node], settings: DesignSettings, shortcuts: Sequence[Shortcut] = ()
) -> tuple[Node, ...]:
    """``layers`` with FIFOs in front of, between and behind them.

    Args:
        layers: each behind those it reads; their ``sources`` name ports, not FIFOs.
        settings: depths of FIFOs. One of a shortcut is never made shorter than it has to be.
        shortcuts: FIFOs that hold what comes too early for a sum.

    Raises:
        InputError: depths are given for a FIFO that does not exist.
    """
    least = {one.port: one.least for one in shortcuts}
    wanted = {f"{one.port}_fifo": one.depth for one in shortcuts}
    nodes: list[Node] = []
    read: dict[str, str] = {}  # port -> what its readers read
    known: set[str] = set()

    def add_fifo(port: str, stream: Stream) -> None:
        name = f"{port}_fifo"
        known.add(name)
        depth = max(settings.depth(name, wanted.get(name)), least.get(port, 0))
        read[port] = name if depth else port
        if depth:
            nodes.append(fifo(name, stream, depth, port, least.get(port, 0)))

    add_fifo(INPUT, layers[0].input)
    before = INPUT
    for layer in layers:
        nodes.append(replace(layer, sources=tuple(read[p] for p in layer.sources or (before,))))
        for port in layer.ports:
            add_fifo(port, layer.output)
        before = layer.name
    if isinstance(settings.fifo_depths, Mapping):
        for name in settings.fifo_depths:
            if name not in known:
                raise unknown_name("FIFO", name, known)
    return tuple(nodes)


def unstitched(nodes: Sequence[Node]) -> list[Node]:
    """The layers among ``nodes``, as ``stitched`` takes them."""
    ports = {node.name: node.sources[0] for node in nodes if node.op == FIFO}
    return [
        replace(node, sources=tuple(ports.get(name, name) for name in node.sources))
        for node in nodes
        if node.op != FIFO
    ]


def kept_shortcuts(nodes: Iterable[Node]) -> list[Shortcut]:
    """The shortcuts whose FIFOs are among ``nodes``."""
    return [
        Shortcut(node.sources[0], node.least, node.depth or 0)
        for node in nodes
        if node.op == FIFO and node.least
    ]


def fifo(name: str, stream: Stream, depth: int, source: str, least: int = 0) -> Node:
    """A FIFO of the stream ``source``."""
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
        sources=(source,),
        least=least,
    )


def _instance(node: Node, sources: Sequence[str]) -> list[str]:
    source, sink = sources[0], node.name
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
    ports = [("s", source)]
    ports += [(f"s{k}", sources[k]) for k in _numbers(node)]
    if node.copies == 1:
        ports.append(("m", sink))
    connections = [
        f".{port}_axis_tdata({net}_tdata), .{port}_axis_tvalid({net}_tvalid), "
        f".{port}_axis_tready({net}_tready)"
        for port, net in ports
    ]
    if node.copies > 1:
        valid, ready = (
            "{" + ", ".join(f"{port}_{signal}" for port in reversed(node.ports)) + "}"
            for signal in ("tvalid", "tready")
        )
        connections.append(
            f".m_axis_tdata({node.ports[0]}_tdata), .m_axis_tvalid({valid}), "
            f".m_axis_tready({ready})"
        )
    lines = [
        f"\t{cell_name(node.name)} {node.name} (",
        "\t\t.ap_clk(ap_clk), .ap_rst_n(ap_rst_n),",
        ",\n".join(f"\t\t{one}" for one in connections),
        "\t);",
    ]
    if node.copies > 1:
        first, *others = node.ports
        lines += [f"\tassign\t{port}_tdata = {first}_tdata;" for port in others]
        lines += [
            f"\tassign\t{sink}_{signal} = {source}_{signal};"
            for signal in ("tdata", "tvalid", "tready")
        ]
    return lines


def _range(stream: Stream) -> str:
    return f"[{8 * stream.bytes - 1}:0]"
