"""Cells of a layer on ECP5, in the portable style, before it is synthesised.

Block RAMs follow from the memories' shapes. Logic cells and flip-flops are sums of terms a
layer's structure gives, with weights fitted to syntheses of single layers (``layer_costs.json``;
``benchmarks/layer_costs.py`` measures, ``benchmarks/fit_costs.py`` fits and prints the error).
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpga_flow.compile import shapes
from fpga_flow.compile.shapes import Folding, LayerShape
from fpga_flow.compile.targets import Resources

WEIGHTS = Path(__file__).parent / "cost_weights.json"
MEASURED = Path(__file__).parent / "layer_costs.json"
# Width x depth a block RAM can have (DP16KD; the widest as PDPW16KD).
_BLOCKS = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16_384))


def block_rams(width: int, depth: int) -> int:
    """Block RAMs of a memory of ``depth`` words of ``width`` bits, none left to logic.

    Example:
        >>> block_rams(64, 1800)
        8
    """
    return min(-(-width // w) * -(-depth // d) for w, d in _BLOCKS)


def layer_cost(shape: LayerShape, folding: Folding) -> Resources:
    """Cells of one layer, without the FIFO behind it."""
    weights = _weights()[_family(shape, folding)]
    found = terms(shape, folding)
    amounts = {
        cell: sum(weights[cell][name] * value for name, value in found.items())
        for cell in ("lut", "ff")
    }
    return Resources(bram=_bram(shape, folding), **amounts)


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


def _family(shape: LayerShape, folding: Folding) -> str:
    """Which weights count: window generators come in two kinds."""
    if shape.kind == shapes.WINDOW:
        parallel = folding.parallel_window or shape.taps == 1
        return f"{shape.kind} {'parallel' if parallel else 'addressed'}"
    return shape.kind


def terms(shape: LayerShape, folding: Folding) -> dict[str, float]:
    """What the cells of a layer are a weighted sum of."""
    return _TERMS[shape.kind](shape, folding)


def _mvau(shape: LayerShape, folding: Folding) -> dict[str, float]:
    pe, simd = folding.pe, folding.simd
    product = shape.weight_bits + shape.input_bits
    fold, rows = shape.columns // simd, shape.out_channels // pe
    width, depth = pe * simd * shape.weight_bits, fold * rows
    replay = simd * shape.input_bits if rows > 1 else 0
    return {
        "one": 1,
        "multiply": pe * simd * shape.weight_bits * shape.input_bits,
        "add": pe * simd * product,
        "accumulate": pe * shape.output_bits,
        "fetch": width,
        "rom": 0 if _bram(shape, folding) else width * math.ceil(depth / 16),
        "replay": replay,
        "replay ram": replay * math.ceil(fold / 16),
    }


def _thresholding(shape: LayerShape, folding: Folding) -> dict[str, float]:
    stages = shape.steps.bit_length()
    depth = shape.channels // folding.pe
    memory = sum(
        folding.pe * shape.input_bits * math.ceil(depth * 2**stage / 16)
        for stage in range(stages)
        if not _threshold_in_block(shape, depth * 2**stage)
    )
    return {
        "one": 1,
        "compare": folding.pe * stages * shape.input_bits,
        "lanes": folding.pe * shape.output_bits,
        "rom": memory,
    }


def _window(shape: LayerShape, folding: Folding) -> dict[str, float]:
    word = folding.simd * shape.input_bits
    counters = math.log2(max(2, shape.inputs))
    if folding.parallel_window or shape.taps == 1:
        held = word * shape.taps
        line = shape.width - shape.kernel[1]
        ram = 0 if _bram(shape, folding) else math.ceil(line / 16) * word * (shape.kernel[0] - 1)
        return {"one": 1, "counters": counters, "held": held, "ram": ram}
    depth = window_depth(shape, folding)
    ram = 0 if _bram(shape, folding) else math.ceil(depth / 16) * word
    return {"one": 1, "counters": counters, "word": word, "ram": ram}


def window_depth(shape: LayerShape, folding: Folding) -> int:
    """Words of an addressed window generator's buffer."""
    (kh, kw), (sh, sw), (dh, dw) = shape.kernel, shape.stride, shape.dilation
    span = (kh - 1) * dh * shape.width + (kw - 1) * dw + 1
    extra = max(0, sw - 1 - kh * kw) + max(0, (sh - 1) * shape.width - kh * kw)
    return (span + extra) * (shape.channels // folding.simd)


def _padding(shape: LayerShape, folding: Folding) -> dict[str, float]:
    return {"one": 1, "word": folding.simd * shape.input_bits}


def _pool(shape: LayerShape, folding: Folding) -> dict[str, float]:
    return {"one": 1, "word": folding.pe * shape.input_bits}


def _converter(shape: LayerShape, folding: Folding) -> dict[str, float]:
    narrow, wide = sorted((folding.simd, folding.pe))
    uneven = wide % narrow > 0
    return {
        "one": 1,
        "wide": wide * shape.input_bits,
        "narrow": narrow * shape.input_bits,
        "uneven": uneven * wide * shape.input_bits,
    }


def _fifo(shape: LayerShape, folding: Folding) -> dict[str, float]:
    word = folding.simd * shape.input_bits
    blocks = _bram(shape, folding)
    return {
        "one": 1,
        "pointers": math.log2(max(2, shape.height)),
        "word": word,
        "ram": 0 if blocks else word * math.ceil(shape.height / 16),
    }


_TERMS = {
    shapes.MVAU: _mvau,
    shapes.THRESHOLDING: _thresholding,
    shapes.WINDOW: _window,
    shapes.PADDING: _padding,
    shapes.POOL: _pool,
    shapes.CONVERTER: _converter,
    shapes.FIFO: _fifo,
}


def _threshold_in_block(shape: LayerShape, depth: int) -> bool:
    return False


def _bram(shape: LayerShape, folding: Folding) -> int:
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
