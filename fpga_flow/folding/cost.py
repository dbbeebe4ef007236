"""Cells of a layer, in the portable style, before it is synthesised.

Block RAMs follow from the memories' shapes. Logic cells and flip-flops are sums of terms a
layer's structure gives, with weights fitted to syntheses of single layers (``layer_costs.json``;
``benchmarks/costs/measure.py`` measures, ``benchmarks/costs/fit.py`` fits and prints the error).
All of these are of ECP5. On Gowin, whose LUTs, carry cells and block RAMs have the same sizes, they
are a guess, and rows of an estimate say so (``Family.estimate``).
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpga_flow.folding import shapes
from fpga_flow.folding.shapes import Folding, LayerShape
from fpga_flow.folding.window_cycles import ring_rows
from fpga_flow.targets import Resources

WEIGHTS = Path(__file__).parent / "cost_weights.json"
MEASURED = Path(__file__).parent / "layer_costs.json"
_SHORT = 150  # block RAMs beyond which weights are packed tightly
_FORCED_BITS = 1024  # our modules put larger memories of rows into block RAM
_AUTOMATIC_BITS = 2048  # yosys fills a block RAM with at least as many bits, or takes none
# Width x depth a block RAM can have (ECP5's DP16KD, the widest as PDPW16KD; Gowin's BSRAM).
_BLOCKS = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16_384))


def block_rams(width: int, depth: int) -> int:
    """Block RAMs of a memory of ``depth`` words of ``width`` bits, none left to logic.

    Example:
        >>> block_rams(64, 1800)
        8
    """
    return min(-(-width // w) * -(-depth // d) for w, d in _BLOCKS)


@functools.cache
def tight_block_rams(width: int, depth: int) -> int:
    """As ``block_rams``, with words split between blocks of different shapes, as yosys can.

    Example:
        >>> tight_block_rams(40, 2400), block_rams(40, 2400)
        (7, 9)
    """
    best = block_rams(width, depth)
    for _, chunk in _BLOCKS:
        if chunk < depth:
            whole = depth // chunk
            rest = depth - whole * chunk
            packed = whole * block_rams(width, chunk)
            best = min(best, packed + (tight_block_rams(width, rest) if rest else 0))
    return best


def weight_blocks(layers: Mapping[str, tuple[LayerShape, Folding]]) -> int:
    """Block RAMs of all weights, where the generator packs them tighter once they get short.

    Args:
        layers: the matrix-vector units.
    """
    sizes = {name: (s.columns * s.out_channels // (f.simd * f.pe), f.pe * f.simd * s.weight_bits)
             for name, (s, f) in layers.items()}  # fmt: skip
    blocks = {name: _weight_blocks(*layers[name]) for name in layers}
    for name in sorted(blocks, key=lambda n: sizes[n][0]):
        if sum(blocks.values()) <= _SHORT:
            break
        depth, width = sizes[name]
        if depth > 64:
            blocks[name] = min(blocks[name], tight_block_rams(width, depth))
    return sum(blocks.values())


def layer_cost(shape: LayerShape, folding: Folding) -> Resources:
    """Cells of one layer, without the FIFO behind it."""
    if shape.kind == shapes.SHIFT:
        return Resources()
    weights = _weights()[family(shape, folding)]
    found = terms(shape, folding)
    amounts = {
        cell: sum(weights[cell][name] * value for name, value in found.items())
        for cell in ("lut", "ff")
    }
    dsp = multipliers(shape, folding) if folding.dsp else 0
    return Resources(bram=block_count(shape, folding), dsp=dsp, **amounts)


def multipliers(shape: LayerShape, folding: Folding) -> int:
    """Multipliers that a layer's products can take, see ``mvu.sv``; 0: none.

    Two rows of a matrix share one where both weights and their products fit into its 18 bits.

    Example:
        >>> unit = LayerShape(name="", kind="MVAU", weight_bits=4, input_bits=4)
        >>> multipliers(unit, Folding(pe=4, simd=8))
        16
    """
    weight, act = shape.weight_bits, shape.input_bits
    if shape.kind not in shapes.PRODUCTS or max(weight, act) > 17:
        return 0
    if _product_style(shape, folding) in ("equal", "table", "ternary"):
        return 0
    rows = shape.kind == shapes.MVAU and folding.pe % 2 == 0
    shared = rows and 2 * weight + act + 1 <= 18
    return folding.pe * folding.simd // (2 if shared else 1)


def _product_style(shape: LayerShape, folding: Folding) -> str:
    weight, act = shape.weight_bits, shape.input_bits
    if weight == 1:
        return "equal" if act == 1 else "ternary"
    if weight == 2 or weight + act <= 4:
        return "table" if weight + act <= 4 else "ternary"
    planes = shape.kind == shapes.MVAU and folding.simd > 1 and not folding.dsp
    return "planes" if planes else "multiply"


def converter_cost(values: int, bits: int, lanes_in: int, lanes_out: int) -> Resources:
    """Cells of a stream width converter."""
    shape = LayerShape(
        name="",
        kind=shapes.CONVERTER,
        channels=values,
        out_channels=values,
        input_bits=bits,
        output_bits=bits,
    )
    return layer_cost(shape, Folding(simd=lanes_in, pe=lanes_out))


def fifo_cost(depth: int, bits: int) -> Resources:
    """Cells of a FIFO of ``depth`` words of ``bits`` bits."""
    shape = LayerShape(name="", kind=shapes.FIFO, height=depth, input_bits=bits, output_bits=bits)
    return layer_cost(shape, Folding())


def family(shape: LayerShape, folding: Folding) -> str:
    """Which weights count: some layers are built in several ways."""
    if shape.kind == shapes.WINDOW:
        parallel = folding.parallel_window or shape.taps == 1
        return f"{shape.kind} {'parallel' if parallel else 'serial'}"
    if shape.kind == shapes.THRESHOLDING:
        return f"{shape.kind} {'in turn' if folding.in_turn else 'pipeline'}"
    return f"{shape.kind} multipliers" if folding.dsp else shape.kind


def terms(shape: LayerShape, folding: Folding) -> dict[str, float]:
    """What the cells of a layer are a weighted sum of."""
    return _TERMS[shape.kind](shape, folding)


def _products(shape: LayerShape, folding: Folding) -> dict[str, float]:
    pe, simd = folding.pe, folding.simd
    weight, act = shape.weight_bits, shape.input_bits
    fold, turns = shape.columns // simd, shape.out_channels // pe
    products, width = pe * simd, pe * simd * weight
    style = _product_style(shape, folding)
    planes, masked = min(weight, act), max(weight, act)
    vectors = 1 if shape.kind == shapes.MVAU else pe
    replay = simd * act if shape.kind == shapes.MVAU and fold > 1 and turns > 1 else 0
    return {
        "one": 1,
        "equal": products * (style == "equal"),
        "table": products * (style == "table"),
        "ternary": products * act * (style == "ternary"),
        "planes": products * planes * (masked + 1) * (style == "planes"),
        "join": pe * planes * (masked + planes) * (style == "planes"),
        "multiply": products * weight * act * (style == "multiply" and not folding.dsp),
        "add": products * (weight + act),
        "inputs": vectors * simd * act,
        "accumulate": pe * shape.output_bits,
        "queue": pe * shape.output_bits * (fold < 16),
        "rom": width * math.ceil(fold * turns / 16) * (not _weight_blocks(shape, folding)),
        "replay": replay * math.ceil(fold / 16) * (not _replay_blocks(shape, folding)),
    }


def _weight_blocks(shape: LayerShape, folding: Folding) -> int:
    """Block RAMs of the weights: words are filled up to a power of two; few words are logic."""
    depth = (shape.columns // folding.simd) * (shape.out_channels // folding.pe)
    if depth <= 16:
        return 0
    return block_rams(folding.pe * folding.simd * shape.weight_bits, 1 << (depth - 1).bit_length())


def _replay_blocks(shape: LayerShape, folding: Folding) -> int:
    fold, width = shape.columns // folding.simd, folding.simd * shape.input_bits
    if shape.kind != shapes.MVAU or shape.out_channels == folding.pe or fold <= 16:
        return 0  # few words are distributed memory
    return block_rams(width, 1 << (fold - 1).bit_length())


def _thresholding(shape: LayerShape, folding: Folding) -> dict[str, float]:
    stages, bits = shape.steps.bit_length(), max(shape.input_bits, shape.weight_bits)
    depths = _threshold_memories(shape, folding)
    memory = sum(
        folding.pe * shape.weight_bits * math.ceil(depth / 16)
        for depth, blocks in depths
        if not blocks
    )
    return {
        "one": 1,
        "compare": folding.pe * bits * (1 if folding.in_turn else stages),
        "steps": folding.pe * stages,
        "rom": memory,
    }


def _threshold_memories(shape: LayerShape, folding: Folding) -> list[tuple[int, int]]:
    """(words, block RAMs) of every memory of a lane."""
    stages, fold = shape.steps.bit_length(), shape.channels // folding.pe
    if folding.in_turn:
        words = fold * (2**stages - 1)
        return [(words, block_rams(shape.weight_bits, words) if words > 64 else 0)]
    depths = [fold * 2**stage for stage in range(stages)]
    return [(depth, _automatic(shape.weight_bits, depth)) for depth in depths]


def _automatic(width: int, depth: int) -> int:
    """Block RAMs where yosys chooses: none where they would stay nearly empty."""
    blocks = block_rams(width, depth)
    return blocks if width * depth >= _AUTOMATIC_BITS * blocks else 0


def _window(shape: LayerShape, folding: Folding) -> dict[str, float]:
    word = folding.simd * shape.input_bits
    counters = math.log2(max(2, shape.height * shape.width * shape.channels // folding.simd))
    width, depth = _window_memory(shape, folding)
    ram = 0 if _window_blocks(shape, folding) else width * math.ceil(depth / 16)
    held = word * shape.taps if folding.parallel_window else word
    return {"one": 1, "counters": counters, "held": held, "ram": ram}


def _window_memory(shape: LayerShape, folding: Folding) -> tuple[int, int]:
    """(width, words) of the memory of rows."""
    word = folding.simd * shape.input_bits
    if folding.parallel_window:
        return word * (shape.kernel[0] - 1), 1 << (shape.width - 1).bit_length()
    line = shape.width * (shape.channels // folding.simd)
    ring = ring_rows(shape.kernel[0], shape.stride[0])
    return word, ring << (line - 1).bit_length()


def _window_blocks(shape: LayerShape, folding: Folding) -> int:
    width, depth = _window_memory(shape, folding)
    used = width * (shape.width if folding.parallel_window else depth)
    return block_rams(width, depth) if used > _FORCED_BITS else 0


def _padding(shape: LayerShape, folding: Folding) -> dict[str, float]:
    return {"one": 1, "word": folding.simd * shape.input_bits}


def _pool(shape: LayerShape, folding: Folding) -> dict[str, float]:
    word = folding.pe * shape.input_bits
    words = _pool_words(shape, folding)
    ram = 0 if _pool_blocks(shape, folding) else word * math.ceil(words / 16)
    return {"one": 1, "word": word, "ram": ram}


def _pool_words(shape: LayerShape, folding: Folding) -> int:
    if not shape.fused:
        return 0
    return (shape.width // shape.kernel[1]) * (shape.channels // folding.pe)


def _pool_blocks(shape: LayerShape, folding: Folding) -> int:
    word, words = folding.pe * shape.input_bits, _pool_words(shape, folding)
    return block_rams(word, words) if word * words > _FORCED_BITS else 0


def _converter(shape: LayerShape, folding: Folding) -> dict[str, float]:
    narrow, wide = sorted((folding.simd, folding.pe))
    uneven = wide % narrow > 0
    return {
        "one": 1,
        "widen": wide * shape.input_bits * (not uneven and folding.pe == wide),
        "narrow": wide * shape.input_bits * (not uneven and folding.pe == narrow),
        "uneven": wide * shape.input_bits * uneven,
    }


def _fifo(shape: LayerShape, folding: Folding) -> dict[str, float]:
    word = folding.simd * shape.input_bits
    return {
        "one": 1,
        "word": word,
        "ram": word * math.ceil(shape.height / 16) * (not _automatic(word, shape.height)),
    }


def _lanes(shape: LayerShape, folding: Folding) -> dict[str, float]:
    """Of a fork, a sum of branches or a sum over a map."""
    words = shape.out_channels // folding.pe if shape.kind == shapes.SUM else 0
    bits = folding.pe * shape.output_bits
    ram = 0 if block_count(shape, folding) else bits * math.ceil(words / 16)
    return {"one": 1, "word": bits, "ram": ram}


def _concat(shape: LayerShape, folding: Folding) -> dict[str, float]:
    word = folding.simd * shape.output_bits
    return {"one": 1, "word": word * (len(shape.parts) - 1)}


_TERMS = {
    shapes.MVAU: _products,
    shapes.VVAU: _products,
    shapes.THRESHOLDING: _thresholding,
    shapes.WINDOW: _window,
    shapes.PADDING: _padding,
    shapes.POOL: _pool,
    shapes.CONVERTER: _converter,
    shapes.FIFO: _fifo,
    shapes.FORK: _lanes,
    shapes.JOIN: _lanes,
    shapes.CONCAT: _concat,
    shapes.SUM: _lanes,
}


def block_count(shape: LayerShape, folding: Folding) -> int:
    """Block RAMs of a layer."""
    if shape.kind in shapes.PRODUCTS:
        return _weight_blocks(shape, folding) + _replay_blocks(shape, folding)
    if shape.kind == shapes.THRESHOLDING:
        return folding.pe * sum(blocks for _, blocks in _threshold_memories(shape, folding))
    if shape.kind == shapes.WINDOW:
        return _window_blocks(shape, folding)
    if shape.kind == shapes.POOL:
        return _pool_blocks(shape, folding)
    if shape.kind == shapes.FIFO:
        return _automatic(folding.simd * shape.input_bits, shape.height)
    return 0


@functools.cache
def _weights() -> Mapping[str, Any]:
    weights: Mapping[str, Any] = json.loads(WEIGHTS.read_text(encoding="utf-8"))["weights"]
    return weights


def measured() -> Sequence[tuple[LayerShape, Folding, Resources]]:
    """The synthesised layers that the weights are fitted to."""
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))["layers"]
    return [
        (
            LayerShape(name="", **{k: _plain(v) for k, v in row["shape"].items()}),
            Folding(**row["folding"]),
            Resources(row["lut"], row["ff"], row["bram"], row["dsp"]),
        )
        for row in rows
    ]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
