"""Sizes that an ONNX file of a stranger declares: bounded before anything is allocated."""

import math
from collections.abc import Sequence
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, helper

from divqat_brevitas.errors import InputError
from fpga_flow.untrusted import REMEDY, short, unsafe

MAX_ELEMENTS = 2**25  # of an activation of one image
MAX_COMPUTED = 2**28  # elements of all constants that follow from others
QUANTIZERS = ("Quant", "BipolarQuant", "Trunc", "IntQuant", "FloatQuant")
_WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "DeformConv": 1, "QLinearConv": 3}
_SMALL = 64  # elements: constants that may be shapes keep their values for shape inference


def check_sizes(model: ModelProto, name: str) -> None:
    """Bound what computing the constants and one image would allocate, after :func:`check_model`.

    Raises:
        UnsafeModelError: a tensor would be larger than ``MAX_ELEMENTS``, or the size of a
            computed constant cannot be told beforehand.
    """
    try:
        # Without data propagation, which itself computes constants of any size.
        inferred = onnx.shape_inference.infer_shapes(_outline(model)).graph
    except Exception as e:  # malformed nodes fail in many ways
        raise InputError(f"{name}: its graph is inconsistent ({short(e)}). {REMEDY}.") from e
    shapes = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    total = 0
    for node in model.graph.node:
        # QONNX folds what follows from shapes alone, too.
        computed = node.op_type in ("Shape", "Size") or constant.issuperset(node.input)
        for output in node.output:
            dims = dimensions(shapes[output]) if output in shapes else [None]
            check_shape(dims, name, f"tensor {output!r}")
            if not computed:
                continue
            constant.add(output)
            if node.op_type == "Constant" or node.domain:
                continue  # as large as what is in the file
            if None in dims:
                raise unsafe(name, f"the size of the constant {output!r} cannot be told")
            total += math.prod(d for d in dims if d is not None)
    if total > MAX_COMPUTED:
        raise unsafe(name, f"its computed constants have {total} elements")


def write_kernel_shapes(graph: GraphProto, name: str) -> None:
    """Write out the kernel shapes that convolutions leave to their weights.

    Without them, and with activations of another rank, ONNX's shape inference reads out of
    bounds and ends the process.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in QUANTIZERS and node.input and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
        at = _WEIGHTS.get(node.op_type)
        if at is None or any(one.name == "kernel_shape" for one in node.attribute):
            continue
        weights = shapes.get(node.input[at]) if len(node.input) > at else None
        if weights is None or len(weights) < 3:
            problem = "its kernel_shape is missing, and its weights are no constant"
            raise unsafe(name, f"{node.op_type} node {node.name!r}: {problem}")
        node.attribute.add().CopyFrom(helper.make_attribute("kernel_shape", weights[2:]))


def check_shape(dims: Sequence[int | None], name: str, where: str) -> None:
    """Bound a tensor by the elements that one image takes in it; the batch is the first dimension.

    Raises:
        UnsafeModelError: a negative dimension, or more than ``MAX_ELEMENTS``.
    """
    known = [d for d in dims[1:] if d is not None]  # without the batch
    first = dims[0] if dims and dims[0] is not None else 0
    if any(not 0 <= d <= MAX_ELEMENTS for d in (first, *known)) or math.prod(known) > MAX_ELEMENTS:
        raise unsafe(
            name, f"{where} has the shape {list(dims)[:8]}, over {MAX_ELEMENTS} elements an image"
        )


def dimensions(value: onnx.ValueInfoProto) -> list[int | None]:
    """Dimensions of a tensor; None where unknown (all of them: [None])."""
    if not value.type.tensor_type.HasField("shape"):
        return [None]
    dims = value.type.tensor_type.shape.dim
    return [int(d.dim_value) if d.HasField("dim_value") else None for d in dims]


def _outline(model: ModelProto) -> ModelProto:
    """The model without its large constants and with only ONNX's operators, to infer shapes."""
    outline = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = outline.graph
    graph.name = "outline"
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in constants:
            continue
        added = graph.input.add()
        added.CopyFrom(value)
        dims = added.type.tensor_type.shape.dim
        if dims:  # the bounds are of one image
            dims[0].dim_value = 1
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.add().CopyFrom(tensor)
        else:
            shape = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.add().CopyFrom(shape)
    for node in model.graph.node:
        added_node = graph.node.add()
        if node.op_type in QUANTIZERS:
            added_node.op_type = "Identity"
            added_node.input.extend(node.input[:1])
            added_node.output.extend(node.output[:1])
        else:
            added_node.CopyFrom(node)
    for value in model.graph.output:
        graph.output.add().name = value.name
    return outline


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def count_messages(content: bytes, descriptor: Any, most: int, deepest: int) -> int:
    """Number of entries (fields) of a serialized message and all messages in it.

    Two bytes of a file can be a message of a hundred bytes in memory, and messages can lie in
    messages without end: so they are counted in the bytes, before they become objects. The encoding
    is defined in https://protobuf.dev/programming-guides/encoding. ``descriptor`` is the message's
    type.

    Raises:
        ValueError: no such message, or a truncated one.
        OverflowError: more than ``most`` entries, or messages nested more than ``deepest`` deep.

    Example:
        >>> from onnx import ModelProto
        >>> model = ModelProto(producer_name="me", ir_version=8)
        >>> count_messages(model.SerializeToString(), ModelProto.DESCRIPTOR, 100, 10)
        2
    """
    entries = 0
    open_messages = [(descriptor, 0, len(content), 0)]
    while open_messages:
        kind, at, end, depth = open_messages.pop()
        if depth > deepest:
            raise OverflowError(f"messages nested more than {deepest} deep (subgraphs)")
        fields = kind.fields_by_number
        while at < end:
            entries += 1
            if entries > most:
                raise OverflowError(f"more than {most} entries")
            tag, at = _varint(content, at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                _, at = _varint(content, at, end)
            elif wire == _BYTES:
                length, at = _varint(content, at, end)
                field = fields.get(number)
                if field is not None and field.message_type is not None:
                    open_messages.append((field.message_type, at, at + length, depth + 1))
                at += length
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if at > end:
                raise ValueError("truncated")
    return entries


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("truncated")
