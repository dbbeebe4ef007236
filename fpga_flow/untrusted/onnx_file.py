"""ONNX files of strangers: read as data, within bounds, or refused.

A model file is more than numbers: it names files to read (external data), Python modules to
import (QONNX imports the module that an operator's domain names), Python expressions (QONNX
evaluates a tensor's layout and sparsity), and sizes to allocate. Here all that is looked at before
anything acts on it. Genuine classifiers are far inside every bound.
"""

import ast
import functools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from divqat_brevitas.errors import InputError
from fpga_flow.untrusted import REMEDY, UnsafeModelError, short, unsafe
from fpga_flow.untrusted import onnx_sizes as sizes

MAX_FILE = 2**31 - 1  # bytes: protobuf's own bound
MAX_MESSAGES = 400_000  # entries of the file: each costs memory beyond its bytes
MAX_DEPTH = 16  # of messages within messages; without subgraphs it is below 8
MAX_NODES = 5_000
MAX_NAME = 1_000  # characters
MAX_PARAMETERS = 2**29  # elements of all constants in the file
DOMAINS = ("", "ai.onnx", "qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
# Of an annotation, what QONNX takes for a datatype, and for a literal that it evaluates.
_DATATYPE = re.compile(
    r"U?INT\d{1,3}|BINARY|BIPOLAR|TERNARY|FLOAT(16|32)|SCALEDINT<\d{1,3}>"
    r"|FIXED<\d{1,3}, ?\d{1,3}>|FLOAT<\d{1,3}(, ?\d{1,3}){1,2}>"
)
_LITERAL = re.compile(r"[\[\](){}'\":, \w]{1,300}")
# An attribute's text: FINN writes some into Verilog and C++.
_PLAIN = re.compile(r"[\w./,()<> -]{0,1000}", re.ASCII)
_EVALUATED = ("tensor_layout", "tensor_sparsity")
_WINDOWS = {"strides": 1, "dilations": 1, "kernel_shape": 1, "pads": 0, "group": 1}


def read_onnx(path: Path | str) -> ModelProto:
    """Read and check an ONNX file, with the tensors stored beside it, in its folder or below.

    Returns:
        a model whose operators, names, references and sizes are within bounds.

    Raises:
        InputError: missing, no ONNX, truncated, or without its external data.
        UnsafeModelError: it reaches out of its folder, names unknown operators or modules,
            holds subgraphs or a cycle, or declares sizes out of bounds.

    Example:
        >>> read_onnx("nowhere.onnx")
        Traceback (most recent call last):
        divqat_brevitas.errors.InputError: nowhere.onnx: cannot be read (No such file or ...
    """
    path = Path(path)
    model = _parsed(_content(path), str(path))
    check_model(model, str(path))
    _load_external(model, path)
    _check_constants(model.graph, str(path))
    sizes.write_kernel_shapes(model.graph, str(path))
    sizes.check_sizes(model, str(path))
    return model


def read_step(path: Path, operators: Mapping[str, Collection[str]]) -> ModelProto:
    """Read and check a model between two steps of a FINN build; it holds all of its tensors.

    Its operators' sizes are not inferred: FINN's are known only to FINN. So every tensor's shape
    must stand in the file, and the process that executes it must be bounded.

    Raises:
        InputError: missing, no ONNX, or truncated.
        UnsafeModelError: others than ``operators`` (by domain), an operator that would run a
            program or reaches for a file, or what :func:`read_onnx` says.
    """
    name = str(path)
    model = _parsed(_content(path), name)
    _check_graph(model, name, functools.partial(_check_step_node, operators))
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(model.graph)):
        raise unsafe(name, "its weights lie in another file")
    _check_constants(model.graph, name)
    graph = model.graph
    shapes = {value.name: value for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        for output in node.output:
            if output not in shapes or None in sizes.dimensions(shapes[output]):
                raise unsafe(name, f"the shape of the tensor {output!r} is not told")
    return model


def check_model(model: ModelProto, name: str) -> None:
    """Check operators, names and references of a model; tensors' content is not looked at."""
    _check_graph(model, name, _check_node)


def _check_graph(
    model: ModelProto, name: str, check_node: Callable[[NodeProto, str], None]
) -> None:
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise unsafe(name, "it holds functions, training steps or sparse tensors")
    if len(graph.node) > MAX_NODES:
        raise unsafe(name, f"it has {len(graph.node)} nodes, more than {MAX_NODES}")
    values = [*graph.input, *graph.output, *graph.value_info]
    texts = [value.name for value in values] + [tensor.name for tensor in graph.initializer]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    for annotation in graph.quantization_annotation:
        texts.append(annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            texts += [entry.key, entry.value]
    texts += [entry.key for entry in model.metadata_props]
    # Text that is not UTF-8 comes as bytes.
    if any(not isinstance(text, str) or len(text) > MAX_NAME for text in texts):
        raise unsafe(name, f"a name in it is no text, or longer than {MAX_NAME} characters")
    for value in values:
        sizes.check_shape(sizes.dimensions(value), name, f"tensor {value.name!r}")
    for node in graph.node:
        check_node(node, name)
    _check_references(graph, name)
    check_annotations(graph, name)
    # FINN evaluates some of the model's metadata, and takes paths from others.
    kept = [entry for entry in model.metadata_props if entry.key.startswith("divqat.")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def check_annotations(graph: GraphProto, name: str) -> None:
    """Check what a graph says of its tensors beside their shapes.

    Raises:
        UnsafeModelError: a datatype of no use, or a layout or sparsity that is no plain literal:
            QONNX evaluates both as Python.
    """
    for annotation in graph.quantization_annotation:
        for entry in annotation.quant_parameter_tensor_names:
            fine = entry.key in _EVALUATED and _is_literal(entry.value)
            if not fine and not _DATATYPE.fullmatch(entry.value):
                where = f"the tensor {short(annotation.tensor_name)!r}"
                raise unsafe(name, f"{where} is annotated {short(entry.value)!r}")


def _is_literal(text: str) -> bool:
    if not _LITERAL.fullmatch(text):
        return False
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


def _content(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise InputError(f"{path}: cannot be read (it is no regular file). Check the path.")
        if path.stat().st_size > MAX_FILE:
            raise UnsafeModelError(f"{path}: larger than 2 GiB, which no ONNX file may be.")
        return path.read_bytes()
    except (OSError, ValueError) as e:
        said = getattr(e, "strerror", None) or e
        raise InputError(f"{path}: cannot be read ({said}). Check the path.") from e


def _parsed(content: bytes, name: str) -> ModelProto:
    try:
        sizes.count_messages(content, ModelProto.DESCRIPTOR, MAX_MESSAGES, MAX_DEPTH)
    except OverflowError as e:
        raise unsafe(name, str(e)) from e
    except ValueError as e:
        raise _no_onnx(name) from e
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as e:
        raise _no_onnx(name) from e
    return model


def _check_node(node: NodeProto, name: str) -> None:
    where = f"{node.op_type} node {node.name!r}"
    if node.domain not in DOMAINS:
        raise unsafe(name, f"{where}: unknown operator domain {node.domain!r}")
    if node.op_type not in sizes.QUANTIZERS:
        # Every other operator must be ONNX's own: its shape can be inferred.
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            raise unsafe(name, f"{where}: unknown operator")
        node.domain = ""
    _check_attributes(node, name, where)
    for attribute in node.attribute:
        if attribute.name in _WINDOWS:
            low = _WINDOWS[attribute.name]
            numbers = attribute.ints if attribute.ints else [attribute.i]
            if not all(low <= n <= sizes.MAX_ELEMENTS for n in numbers):
                raise unsafe(name, f"{where}: {attribute.name} = {list(numbers)[:8]}")


def _check_step_node(operators: Mapping[str, Collection[str]], node: NodeProto, name: str) -> None:
    where = f"{node.op_type} node {node.name!r}"
    if node.op_type not in operators.get(node.domain, ()):
        raise unsafe(name, f"{where}: FINN's builds have no such operator in {node.domain!r}")
    if not re.fullmatch(r"\w*", node.name, re.ASCII):  # of a file, and of a Verilog module
        raise unsafe(name, f"{where}: its name is none that FINN gives")
    _check_attributes(node, name, where)
    for attribute in node.attribute:
        text = attribute.s.decode("utf-8", "replace")
        fine = _PLAIN.fullmatch(text) is not None and all(
            abs(n) <= sizes.MAX_ELEMENTS for n in (attribute.i, *attribute.ints)
        )
        if attribute.name == "exec_mode":  # a simulation: a program that the file names
            fine = text in ("", "python")
        elif attribute.name.lower().endswith(("datatype", "dtype")):
            fine = _DATATYPE.fullmatch(text) is not None
        if not fine:
            raise unsafe(name, f"{where}: its attribute {attribute.name!r} is not of FINN")


def _check_attributes(node: NodeProto, name: str, where: str) -> None:
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        raise unsafe(name, f"{where}: an attribute stands in it twice")
    for attribute in node.attribute:
        if attribute.type in _SUBGRAPHS or attribute.HasField("g") or attribute.graphs:
            raise unsafe(name, f"{where}: it holds a subgraph")
        if attribute.ref_attr_name or attribute.sparse_tensor.dims or attribute.sparse_tensors:
            raise unsafe(name, f"{where}: its attribute {attribute.name!r} is no plain value")


def _check_references(graph: GraphProto, name: str) -> None:
    """Every tensor is made once, before it is read."""
    initializers = [tensor.name for tensor in graph.initializer]
    inputs = [value.name for value in graph.input]
    for kind, names in (("constants", initializers), ("inputs", inputs)):
        if len(set(names)) < len(names):
            raise unsafe(name, f"two of its {kind} have the same name")
    made = {*initializers, *inputs, ""}
    for node in graph.node:
        for source in node.input:
            if source not in made:
                raise unsafe(
                    name,
                    f"{node.op_type} node {node.name!r} reads {source!r}, which no node before it "
                    "makes (a cycle, or nodes out of order)",
                )
        for output in node.output:
            if output and output in made:
                raise unsafe(name, f"the tensor {output!r} is made twice")
            made.add(output)
    for value in graph.output:
        if value.name not in made:
            raise unsafe(name, f"nothing makes its output {value.name!r}")


def _load_external(model: ModelProto, path: Path) -> None:
    """Load tensors from other files; onnx keeps to the folder and follows no links."""
    total = 0
    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        about = {entry.key: entry.value for entry in tensor.external_data}
        location = about.get("location", "")
        try:
            size = (path.parent / location).lstat().st_size
            declared = int(about.get("length", size))
        except (OSError, ValueError) as e:
            raise _no_weights(path, e) from e
        total += max(size, declared)
        if total > MAX_FILE:
            raise unsafe(str(path), f"its weights lie in {location!r}, which is too large")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as e:
        raise _no_weights(path, e) from e


def _check_constants(graph: GraphProto, name: str) -> None:
    total = 0
    for tensor in _tensors(graph):
        total += _check_tensor(tensor, name)
    if total > MAX_PARAMETERS:
        raise unsafe(name, f"its constants have {total} elements")


def _check_tensor(tensor: TensorProto, name: str) -> int:
    """Elements of a tensor, whose content must be as long as its shape says."""
    where = f"the constant {tensor.name!r}"
    if tensor.data_type not in _SIZES:
        raise unsafe(name, f"{where} has the element type {tensor.data_type}")
    if tensor.HasField("segment") or any(d < 0 for d in tensor.dims):
        raise unsafe(name, f"{where} is in segments, or a dimension is negative")
    elements = int(math.prod(tensor.dims))
    if tensor.HasField("raw_data"):
        stored = len(tensor.raw_data) / _SIZES[tensor.data_type]
    else:
        stored = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
    if stored != elements:
        shape = list(tensor.dims)[:8]
        raise unsafe(name, f"{where} declares the shape {shape} but holds {stored:g} values")
    return elements


def _element_sizes() -> dict[int, int]:
    """Bytes of an element by ONNX type: only plain numbers (no text, no packed 4 bits)."""
    plain = "FLOAT DOUBLE FLOAT16 INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 BOOL"
    kinds = [TensorProto.DataType.Value(kind) for kind in plain.split()]
    return {kind: np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize for kind in kinds}


_SIZES = _element_sizes()


def _tensors(graph: GraphProto) -> Iterable[TensorProto]:
    """The constants of a graph, those in attributes among them."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _no_onnx(name: str) -> InputError:
    return InputError(f"{name}: no ONNX file, or a truncated one. {REMEDY}.")


def _no_weights(path: Path, error: Any) -> InputError:
    return InputError(
        f"{path}: its weights lie in another file that is missing or damaged ({short(error)}). "
        "Copy that file beside the model, or save the model as a single file."
    )
