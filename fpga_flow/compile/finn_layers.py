"""The shapes of a FINN model's hardware layers, and their folding (inside the worker)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from fpga_flow.folding import shapes
from fpga_flow.folding.branches import INPUT
from fpga_flow.folding.shapes import Folding, LayerShape
from fpga_flow.lowering.ir import bits_for

Attribute = Callable[[str], Any]
_CODE_BITS = 8  # of the widest codes there are


def layer_shapes(model: ModelWrapper) -> tuple[LayerShape, ...]:
    """The hardware layers of a specialised model in network order.

    Args:
        model: after step_specialize_layers.
    """
    return tuple(_shape(model, node) for node in model.graph.node)


def current_folding(model: ModelWrapper) -> dict[str, Folding]:
    """The folding that the model's layers have."""
    return {node.name: _folding(node) for node in model.graph.node}


def _folding(node: NodeProto) -> Folding:
    operator = getCustomOp(node)
    known = operator.get_nodeattr_types()

    def value(name: str, default: int) -> int:
        return int(operator.get_nodeattr(name)) if name in known else default

    return Folding(
        value("PE", 1),
        value("SIMD", 1),
        bool(value("parallel_window", 0)),
        dsp=takes_multipliers(node),
    )


def takes_multipliers(node: NodeProto) -> bool:
    """Whether a node's folding asks for the device's multipliers."""
    return any(one.name == "resType" and one.s == b"dsp" for one in node.attribute)


def weight_bits(model: ModelWrapper, node: NodeProto) -> int:
    """Bits of a weight in the portable style's hardware: 1 for a matrix of -1 and +1."""
    weights = model.get_initializer(node.input[1])
    if node.op_type.startswith(shapes.MVAU) and np.isin(weights, (-1, 1)).all():
        return 1
    return max(2, bits_for(min(-1, int(weights.min())), int(weights.max())))


def _shape(model: ModelWrapper, node: NodeProto) -> LayerShape:
    kind = node.op_type.rsplit("_", 1)[0]
    value: Attribute = getCustomOp(node).get_nodeattr
    read = {
        shapes.MVAU: _mvau,
        shapes.VVAU: _vvau,
        shapes.THRESHOLDING: _thresholding,
        shapes.PADDING: _padding,
        shapes.WINDOW: _window,
        shapes.POOL: _pool,
        shapes.FORK: _lanes,
        shapes.SUM: _sum,
        shapes.JOIN: _join,
        shapes.CONCAT: _concat,
    }.get(kind)
    known = {} if read is None else read(value, model, node)
    if kind == shapes.THRESHOLDING and passed(model, node) is not None:
        kind = shapes.SHIFT
    return LayerShape(name=node.name, kind=kind, sources=sources_of(model, node), **known)


def port_of(model: ModelWrapper, tensor: str) -> str:
    """The port whose stream a tensor is, see ``folding.branches``."""
    producer = model.find_producer(tensor)
    if producer is None:
        return INPUT
    outputs = list(producer.output)
    return str(producer.name) + (f"_{outputs.index(tensor)}" if outputs[1:] else "")


def sources_of(model: ModelWrapper, node: NodeProto) -> tuple[str, ...]:
    """The ports that a node reads."""
    moving = [name for name in node.input if model.get_initializer(name) is None]
    return tuple(port_of(model, name) for name in moving)


def passed(model: ModelWrapper, node: NodeProto) -> int | None:
    """By how many bits a ``Thresholding`` shifts its codes; None: it computes something else.

    What an identity shortcut's quantizer does to codes of its own scale.
    """
    operator, thresholds = getCustomOp(node), model.get_initializer(node.input[1])
    taken = DataType[operator.get_nodeattr("inputDataType")]
    if thresholds is None or taken.bitwidth() > _CODE_BITS:
        return None
    values = np.arange(int(taken.min()), int(taken.max()) + 1)
    counts = (thresholds[:, :, None] <= values).sum(axis=1) + operator.get_nodeattr("ActVal")
    top = np.flatnonzero(values == 1)
    shift = int(counts[0, top[0]]).bit_length() - 1 if top.size else -1
    return shift if shift >= 0 and (counts == values << shift).all() else None


def _bits(name: str) -> int:
    return int(DataType[name].bitwidth())


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= int(size)
    return total


def _pair(sizes: list[int]) -> tuple[int, int]:
    return int(sizes[0]), int(sizes[1])


def _lanes(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    vectors, bits = list(value("numInputVectors")), _bits(value("inputDataType"))
    return {
        **_map(vectors),
        "channels": value("NumChannels"),
        "out_channels": value("NumChannels"),
        "vectors": _product(vectors),
        "input_bits": bits,
        "output_bits": bits,
    }


def _sum(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    total = model.get_tensor_datatype(node.output[0]).bitwidth()
    return _lanes(value, model, node) | {"vectors": 1, "output_bits": int(total)}


def _join(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    *vectors, channels = list(value("out_shape"))
    bits = max(_bits(value("lhs_dtype")), _bits(value("rhs_dtype")))
    return {
        **_map(vectors),
        "channels": int(channels),
        "out_channels": int(channels),
        "vectors": _product(vectors),
        "input_bits": bits,
        "output_bits": _bits(value("out_dtype")),
    }


def _concat(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    vectors, parts = list(value("numInputVectors")), list(value("ChannelsPerStream"))
    return {
        **_map(vectors),
        "channels": sum(parts),
        "out_channels": sum(parts),
        "parts": tuple(int(part) for part in parts),
        "vectors": _product(vectors),
        "input_bits": max(_bits(name) for name in value("inputDataTypes")),
        "output_bits": int(model.get_tensor_datatype(node.output[0]).bitwidth()),
    }


def _map(vectors: list[int]) -> dict[str, int]:
    height, width = vectors[-2:] if len(vectors) == 3 else (1, 1)
    return {"height": int(height), "width": int(width)}


def _mvau(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    return {
        "columns": value("MW"),
        "channels": value("MW"),
        "out_channels": value("MH"),
        "vectors": _product(value("numInputVectors")),
        "input_bits": _bits(value("inputDataType")),
        "output_bits": _bits(value("outputDataType")),
        "weight_bits": weight_bits(model, node),
    }


def _vvau(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    kernel = _pair(value("Kernel"))
    return {
        "columns": kernel[0] * kernel[1],
        "channels": value("Channels"),
        "out_channels": value("Channels"),
        "vectors": _product(value("Dim")),
        "kernel": kernel,
        "input_bits": _bits(value("inputDataType")),
        "output_bits": _bits(value("outputDataType")),
        "weight_bits": weight_bits(model, node),
    }


def _thresholding(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    thresholds = model.get_initializer(node.input[1])
    return {
        "channels": value("NumChannels"),
        "out_channels": value("NumChannels"),
        "vectors": _product(value("numInputVectors")),
        "input_bits": _bits(value("inputDataType")),
        "output_bits": _bits(value("outputDataType")),
        "weight_bits": _bits(value("weightDataType")),
        "steps": value("numSteps"),
        "per_channel": thresholds is None or thresholds.shape[0] > 1,
    }


def _padding(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    height, width = _pair(value("ImgDim"))
    bits = _bits(value("inputDataType"))
    top, left, bottom, right = (int(n) for n in value("Padding"))
    return {
        "height": height,
        "width": width,
        "channels": value("NumChannels"),
        "out_channels": value("NumChannels"),
        "vectors": (height + top + bottom) * (width + left + right),
        "padding": (top, left, bottom, right),
        "input_bits": bits,
        "output_bits": bits,
    }


def _window(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    height, width = _pair(value("IFMDim"))
    bits = _bits(value("inputDataType"))
    return {
        "height": height,
        "width": width,
        "channels": value("IFMChannels"),
        "out_channels": value("IFMChannels"),
        "vectors": _product(value("OFMDim")),
        "kernel": _pair(value("ConvKernelDim")),
        "stride": _pair(value("Stride")),
        "dilation": _pair(value("Dilation")),
        "depthwise": bool(value("depthwise")),
        "input_bits": bits,
        "output_bits": bits,
    }


def _pool(value: Attribute, model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    return {
        "channels": value("Channels"),
        "out_channels": value("Channels"),
        "vectors": _product(value("OutImgDims")),
        "kernel": _pair(value("KernelSize")),
        "input_bits": _bits(value("InputDataType")),
        "output_bits": _bits(value("OutputDataType")),
    }
