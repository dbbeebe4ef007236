"""Which layers become modules of ours as a whole: windows, max pools, and how they are set up.

FINN's window generator in front of a max pool puts windows together only to have them reduced;
ours (``pool_grid``) keeps running maxima instead, and the generator goes. Other windows are made by
``window_serial`` or ``window_parallel``, which take an image while the one before still leaves.
"""

from collections.abc import Sequence
from typing import Any

from fpga_flow.folding import shapes
from fpga_flow.rtl.design import Stream

Facts = dict[str, Any]


def window_facts(op: Any) -> Facts:
    """What ``window_body`` and ``fused`` need to know of a ``ConvolutionInputGenerator``.

    Args:
        op: FINN's operator.
    """
    rows, cols = (int(size) for size in op.get_nodeattr("IFMDim"))
    k_rows, k_cols = (int(size) for size in op.get_nodeattr("ConvKernelDim"))
    s_rows, s_cols = (int(step) for step in op.get_nodeattr("Stride"))
    return {
        "rows": rows,
        "cols": cols,
        "k_rows": k_rows,
        "k_cols": k_cols,
        "s_rows": s_rows,
        "s_cols": s_cols,
        "fold": int(op.get_nodeattr("IFMChannels")) // int(op.get_nodeattr("SIMD")),
        "dense": all(int(gap) == 1 for gap in op.get_nodeattr("Dilation")),
        "depthwise": bool(op.get_nodeattr("depthwise")),
        "parallel": bool(op.get_nodeattr("parallel_window")),
    }


def ours(facts: Facts) -> bool:
    """Whether ``window_body`` has a module for these windows; else FINN's is taken."""
    if not facts["dense"]:
        return False
    return facts["fold"] == 1 if facts["parallel"] else True


def fused(records: Sequence[Facts]) -> list[Facts]:
    """Layer records without the window generators whose max pools do with the image itself.

    Args:
        records: in order; window generators have ``window``.
    """
    found = {record["name"]: record for record in records}
    for record in records:
        before = found.get(record["sources"][0], {})
        window = before.get("window")
        if record["op"] == "Pool" and window and _tiles(window):
            del found[before["name"]]
            found[record["name"]] = {
                **record,
                "sources": before["sources"],
                "input": before["input"],
                "cycles": max(before["cycles"], record["cycles"]),
                "pool": {**record["pool"], "grid": window},
            }
    return list(found.values())


def _tiles(window: Facts) -> bool:
    """The windows do not overlap, leave nothing out between them and come beat by beat."""
    steps = (window["s_rows"], window["s_cols"])
    return bool(
        window["dense"] and not window["parallel"] and steps == (window["k_rows"], window["k_cols"])
    )


def grid_body(name: str, stream: Stream, grid: Facts) -> str:
    """The instance of ``pool_grid`` in a max pool's cell."""
    bits = stream.lanes * stream.bits
    return f"""	wire [{bits - 1}:0]  odat;
	pool_grid #(
		.PE({stream.lanes}), .WIDTH({stream.bits}), .SIGNED({stream.signed:d}),
		.FOLD({grid["fold"]}), .ROWS({grid["rows"]}), .COLS({grid["cols"]}),
		.K_ROWS({grid["k_rows"]}), .K_COLS({grid["k_cols"]})
	) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat(s_axis_tdata[{bits - 1}:0]), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def window_body(name: str, taken: Stream, given: Stream, facts: Facts) -> str:
    """The instance of ``window_serial`` or ``window_parallel`` in a window generator's cell."""
    bits, out = taken.lanes * taken.bits, given.lanes * given.bits
    module = "window_parallel" if facts["parallel"] else "window_serial"
    fold = "" if facts["parallel"] else f" .FOLD({facts['fold']}),"
    if facts["depthwise"] and not facts["parallel"]:
        fold += " .DEPTHWISE(1),"
    return f"""	wire [{out - 1}:0]  odat;
	{module} #(
		.WIDTH({bits}),{fold} .ROWS({facts["rows"]}), .COLS({facts["cols"]}),
		.K_ROWS({facts["k_rows"]}), .K_COLS({facts["k_cols"]}),
		.S_ROWS({facts["s_rows"]}), .S_COLS({facts["s_cols"]})
	) {name} (
		.clk(ap_clk), .rst(!ap_rst_n),
		.idat(s_axis_tdata[{bits - 1}:0]), .ivld(s_axis_tvalid), .irdy(s_axis_tready),
		.odat(odat), .ovld(m_axis_tvalid), .ordy(m_axis_tready)
	);
	assign	m_axis_tdata = odat;"""


def searches_in_turn(record: Facts, before: Facts | None) -> bool:
    """Whether a ``Thresholding`` layer may take its steps one after the other.

    It then has one comparator a lane instead of one a step, and needs two cycles a step: no
    loss behind a matrix-vector unit that takes as long for a beat.

    Args:
        record: of the layer.
        before: of the layer in front of it.
    """
    if before is None or before["op"] not in shapes.PRODUCTS:
        return False
    interval = int(before["cycles"]) // int(before["output"]["beats"])
    return interval >= 2 * int(record["output"]["bits"]) + 3


# Block RAM of the open flow's devices (ECP5, Gowin): words -> bits of a word.
_SHAPES = {512: 36, 1024: 18, 2048: 9, 4096: 4, 8192: 2, 16384: 1}
# Of 208 in the largest device; the rest is for images' rows and activations.
_BLOCKS = 150
_FEW, _SHALLOW = 16, 64  # words that a look-up table holds for a bit; four of them


def weight_memories(records: Sequence[Facts]) -> dict[str, str]:
    """``RAM_STYLE`` of every matrix-vector unit's weights: layer -> style.

    ``"block"`` takes no logic at all (words are filled up to a power of two). Few words cost
    little as ``"logic"``. Where block RAM gets short, ``"auto"`` packs memories as tightly as
    synthesis can, at the price of multiplexers; then shallow ones become logic.

    Args:
        records: of all layers; those with weights have ``weights``: ``depth`` and ``width``.

    Example:
        >>> weight_memories([{"name": "a", "weights": {"depth": 25, "width": 192}}])
        {'a': 'block'}
    """
    sizes = {
        r["name"]: (r["weights"]["depth"], r["weights"]["width"]) for r in records if "weights" in r
    }
    styles = {n: "block" if depth > _FEW else "logic" for n, (depth, _) in sizes.items()}
    blocks = {n: _rounded(*sizes[n]) for n, style in styles.items() if style == "block"}
    saved = {n: blocks[n] - _tight(*sizes[n]) for n in blocks}
    for name in sorted(saved, key=lambda n: -saved[n]):
        if sum(blocks.values()) > _BLOCKS and saved[name] > 0:
            blocks[name] -= saved[name]
            styles[name] = "auto"
    for name in sorted(blocks, key=lambda n: sizes[n]):
        if sum(blocks.values()) > _BLOCKS and sizes[name][0] <= _SHALLOW:
            del blocks[name]
            styles[name] = "logic"
    return styles


def _rounded(depth: int, width: int) -> int:
    """Blocks without multiplexers behind them: words are filled up to a power of two."""
    word = next((bits for words, bits in _SHAPES.items() if words >= depth), 1)
    return -(-width // word) * -(-depth // max(_SHAPES))


def _tight(depth: int, width: int) -> int:
    return min(-(-depth // words) * -(-width // bits) for words, bits in _SHAPES.items())
