"""Trunc: integers to fewer bits by a shift, as thresholds.

Source: QONNX's operator definition of Trunc, versions 1 (five inputs: no clipping, and the scale
stays) and 2 (six inputs: clipped to the output's bits, at the output's scale).
"""

import numpy as np
from onnx import NodeProto

from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.context import Context
from fpga_flow.lowering.ir import FloatArray, bits_for
from fpga_flow.lowering.model import refuse
from fpga_flow.lowering.quantize import MAX_ACTIVATION_BITS, check_count, emit_codes
from fpga_flow.lowering.quantizers import ACTIVATION_ROUNDINGS, Quantizer, rounding_mode
from fpga_flow.lowering.thresholds import fold


def truncate(ctx: Context, node: NodeProto) -> None:
    """Lower a Trunc of integers: ``code = clip(round(n / 2**shift))``, ties included.

    The operator rounds its input to integers before it divides by a power of two, so float noise
    decides nothing: its thresholds need no settling.
    """
    x = ctx.affine(node)
    constants = [ctx.constant(node, index) for index in range(1, len(node.input))]
    if any(c is None or c.size != 1 for c in constants):
        raise refuse(
            node,
            "its scales or bit widths are several, or computed at run time",
            "Truncate a tensor of one constant scale (Brevitas: activations scaled per tensor)",
        )
    numbers = [float(c.reshape(())) for c in constants if c is not None]
    (scale, zero_point, input_bits), last = numbers[:3], numbers[3:]
    if zero_point != 0:
        raise refuse(node, "its zero-point is not 0", "Use a symmetric quantizer")
    steps = x.scale / scale  # of the integers that it shifts, for one of x
    whole = np.rint(steps)
    largest = np.maximum(np.abs(x.low), np.abs(x.high))
    if x.clipped or x.bias.any() or (np.abs(steps - whole) * largest > 0.25).any():
        raise refuse(
            node,
            "its input is no integer times its scale",
            "Put it behind an activation quantizer and an average pool (Brevitas: "
            "TruncAvgPool2d on a QuantTensor)",
        )
    if len(last) == 1:
        (bits,) = last
        shift, output_scale = input_bits - bits, scale
    else:
        output_scale, bits = last
        shift = float(np.rint(np.log2(output_scale / scale)))
    if shift != int(shift) or bits != int(bits) or bits < 1:
        raise refuse(node, f"its bit width {bits:g} is no positive integer", "Use one")
    gain = whole * 2.0**-shift
    quantizer = _quantizer(node, output_scale, int(bits), gain * x.low, gain * x.high, len(last))
    check_count(node, x.shape, quantizer.bits)
    everywhere = np.full(x.shape[0], np.inf)
    folded = fold(quantizer, gain, 0 * gain, x.low, x.high, floor=-everywhere, ceiling=everywhere)
    emit_codes(ctx, node, x, quantizer, folded, np.full(x.shape[0], output_scale))


def _quantizer(
    node: NodeProto, scale: float, bits: int, low: FloatArray, high: FloatArray, version: int
) -> Quantizer:
    rounding = rounding_mode(node, "FLOOR")
    if rounding not in ACTIVATION_ROUNDINGS:
        raise refuse(
            node,
            f"rounding mode {rounding} of activations is not supported",
            f"Use {', '.join(ACTIVATION_ROUNDINGS)}",
        )
    signed, narrow = bool(attribute(node, "signed", 1)), bool(attribute(node, "narrow", 0))
    if version == 1:  # whatever the bits are that it names, no code is clipped
        ends = np.concatenate([low, high])
        least, most = int(np.floor(ends.min())), int(np.ceil(ends.max()))
        bits, signed, narrow = bits_for(least, most), least < 0, False
    if bits > MAX_ACTIVATION_BITS:
        raise refuse(
            node,
            f"it leaves {bits} bits",
            f"Truncate to at most {MAX_ACTIVATION_BITS} bits",
        )
    return Quantizer(
        np.array(scale, np.float32),
        bits=bits,
        signed=signed,
        narrow=narrow,
        rounding=rounding,
        bipolar=False,
    )
