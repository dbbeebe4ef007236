"""Padding as numbers inside convolutions and pools.

Exporters write one padding in several ways: as numbers, as a rule (``auto_pad``), or as a Pad node
in front. ``explicit_padding`` makes numbers of all of them where the result is the same.
"""

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, helper
from qonnx.core.modelwrapper import ModelWrapper

from fpga_flow.lowering.attributes import attribute
from fpga_flow.lowering.ir import IntArray

_WINDOWED = ("Conv", "MaxPool", "AveragePool")
# Pixels at the start of an axis, of those that are missing.
_SAME: dict[str, Callable[[int], int]] = {
    "VALID": lambda missing: 0,
    "SAME_UPPER": lambda missing: missing // 2,
    "SAME_LOWER": lambda missing: missing - missing // 2,
}


def explicit_padding(model: ModelWrapper) -> bool:
    """Write ``auto_pad`` and Pad nodes in front of windows as numbers, in place.

    A Pad node goes where the windows behind it pad alike themselves: zeros in front of a
    convolution, or in front of a max pool of codes that are never negative.

    Args:
        model: with inferred shapes and folded constants.

    Returns:
        whether anything was changed.
    """
    changed = False
    for node in model.graph.node:
        mode = attribute(node, "auto_pad", "NOTSET")
        if node.op_type in _WINDOWED and mode != "NOTSET":
            changed = _numbered(model, node, mode) or changed
    for node in list(model.graph.node):
        if node.op_type == "Pad":
            changed = _folded(model, node) or changed
    return changed


def _numbered(model: ModelWrapper, node: NodeProto, mode: str) -> bool:
    """Replace ``auto_pad`` by pads; an unknown mode stays."""
    if mode not in _SAME:
        return False
    sizes, outputs = (model.get_tensor_shape(n)[2:] for n in (node.input[0], node.output[0]))
    kernel = attribute(node, "kernel_shape", None) or model.get_tensor_shape(node.input[1])[2:]
    ones = [1] * len(sizes)
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    each = zip(sizes, outputs, kernel, strides, dilations, strict=True)
    missing = [max((out - 1) * s + d * (k - 1) + 1 - size, 0) for size, out, k, s, d in each]
    starts = [_SAME[mode](total) for total in missing]
    if mode == "VALID":
        missing = [0] * len(sizes)
    _set(node, "pads", [*starts, *(a - b for a, b in zip(missing, starts, strict=True))])
    node.attribute.remove(next(a for a in node.attribute if a.name == "auto_pad"))
    return True


def _folded(model: ModelWrapper, pad: NodeProto) -> bool:
    """Move a Pad node's zeros into all nodes that read it; False where one cannot take them."""
    pads, readers = pads_of(model, pad), model.find_consumers(pad.output[0]) or []
    is_output = any(pad.output[0] == output.name for output in model.graph.output)
    if pads is None or not readers or is_output or value_of(model, pad) != 0:
        return False
    if attribute(pad, "mode", "constant") != "constant":
        return False
    half = len(pads) // 2
    if pads[:2].any() or pads[half : half + 2].any() or (pads < 0).any():
        return False
    pads = np.concatenate([pads[2:half], pads[half + 2 :]])
    if not all(_takes(model, reader, pad, pads) for reader in readers):
        return False
    for reader in readers:
        own = np.array(attribute(reader, "pads", [0] * len(pads)))
        _set(reader, "pads", [int(n) for n in own + pads])
        for index, name in enumerate(reader.input):
            if name == pad.output[0]:
                reader.input[index] = pad.input[0]
    model.graph.node.remove(pad)
    return True


def _takes(model: ModelWrapper, reader: NodeProto, pad: NodeProto, pads: IntArray) -> bool:
    """Whether ``reader`` computes the same with these zeros as its own padding."""
    if attribute(reader, "auto_pad", "NOTSET") != "NOTSET" or pad.output[0] in reader.input[1:]:
        return False
    if reader.op_type == "Conv":
        return True
    if reader.op_type != "MaxPool" or attribute(reader, "ceil_mode", 0):
        return False
    # The padding of a max pool never wins: like zeros, where no code is below and every window
    # holds a pixel.
    codes = model.find_producer(pad.input[0])
    unsigned = codes is not None and codes.op_type == "Quant" and not attribute(codes, "signed", 1)
    own = np.array(attribute(reader, "pads", [0] * len(pads)))
    kernel = np.tile(attribute(reader, "kernel_shape", ()), 2)
    return unsigned and bool((own + pads < kernel).all())


def pads_of(model: ModelWrapper, node: NodeProto) -> IntArray | None:
    """Starts, then ends, of all axes; None where they are not constant."""
    pads = model.get_initializer(node.input[1]) if len(node.input) > 1 else None
    rank = len(model.get_tensor_shape(node.input[0]))
    axes: IntArray | None = np.arange(rank)
    if len(node.input) > 3 and node.input[3]:
        axes = model.get_initializer(node.input[3])
    if pads is None or axes is None:
        return None
    full = np.zeros((2, rank), dtype=np.int64)
    full[:, axes] = np.asarray(pads).reshape(2, -1)
    return full.reshape(-1)


def value_of(model: ModelWrapper, node: NodeProto) -> float | None:
    """What a Pad node pads with; None where it is not constant."""
    if len(node.input) < 3 or not node.input[2]:
        return 0.0
    value = model.get_initializer(node.input[2])
    return None if value is None else float(np.asarray(value).reshape(()))


def _set(node: NodeProto, name: str, value: list[int]) -> None:
    for old in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, [int(n) for n in value]))
