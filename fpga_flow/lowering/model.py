"""QONNX files in: loaded, checked and cleaned on a copy.

Cleaning is QONNX's own: shapes inferred, constants folded (weight quantizers stay), one name a
node and a tensor; then padding becomes numbers (see ``padding``). The names it gives (``Conv_0``,
``Conv_0_out0``) are the names of layers and tensors everywhere downstream; cleaning a cleaned
model changes nothing.
"""

import re
from pathlib import Path

from onnx import ModelProto, NodeProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.util.cleanup import cleanup_model

from divqat_brevitas.errors import InputError
from fpga_flow.lowering.padding import explicit_padding
from fpga_flow.lowering.preamble import explicit_preamble
from fpga_flow.untrusted.onnx_file import read_onnx
from fpga_flow.untrusted.onnx_sizes import check_shape

QUANTIZERS = ("Quant", "BipolarQuant")
_SOURCE = "divqat.source"
_POSITION = "divqat.position"
_SCOPES = "pkg.torch.onnx.name_scopes"
_EXPORT = "Export it with fpga_flow.export_qonnx (or brevitas.export.export_qonnx)"


def load_model(path: Path | str) -> ModelWrapper:
    """Read a QONNX file.

    Args:
        path: an ONNX file; tensors stored outside it must lie beside it.

    Returns:
        the model as it is in the file.

    Raises:
        InputError: missing, no ONNX, truncated, without its external data, no QONNX, or one
            that asks for more than a classifier needs (see ``fpga_flow.untrusted.onnx_file``).

    Example:
        >>> load_model("nowhere.onnx")
        Traceback (most recent call last):
        divqat_brevitas.errors.InputError: nowhere.onnx: cannot be read (No such file or ...
    """
    proto = read_onnx(path)
    _check(proto, str(path))
    try:
        return ModelWrapper(proto)
    except Exception as e:  # QONNX asserts, and trips over what is missing
        raise InputError(f"{path}: a damaged ONNX file ({e}). {_EXPORT} again.") from e


def clean(model: Path | str | ModelWrapper) -> ModelWrapper:
    """A cleaned copy of a QONNX model, at batch 1; the caller's model is not changed.

    Args:
        model: a file or a model.

    Returns:
        a copy with inferred shapes, folded constants and unique names. Each node keeps the name
        it had in the file (see ``source_of``).

    Raises:
        InputError: what ``load_model`` refuses, or a graph whose shapes cannot be inferred.

    Example:
        >>> [node.name for node in clean("model.onnx").graph.node]
        ['Quant_0', 'Quant_1', ...]
    """
    if isinstance(model, ModelWrapper):
        _check(model.model, "the model")
        name, copy = "the model", ModelWrapper(model.model, make_deepcopy=True)
    else:
        name, copy = str(model), load_model(model)
    try:
        # QONNX folds constants with the first listed operator set, which must be ONNX's own.
        copy.model.opset_import.sort(key=lambda opset: opset.domain)
        _drop_listed_constants(copy)
        for position, node in enumerate(copy.graph.node):
            _remember_source(node, position)
        _separate_equal_inputs(copy)
        if _batch(copy) != 1:
            copy = copy.transform(ChangeBatchSize(1))
        copy = cleanup_model(copy)
        rewritten = [explicit_preamble(copy), explicit_padding(copy)]
        if any(rewritten):
            copy = cleanup_model(copy)  # names again, and no tensors left over
        shapes = [copy.get_tensor_shape(out) for node in copy.graph.node for out in node.output]
    # QONNX and ONNX Runtime raise bare Exceptions of many kinds on a malformed graph.
    except Exception as e:
        raise InputError(
            f"{name}: its graph is inconsistent, shape inference failed ({e}). {_EXPORT} again."
        ) from e
    if any(shape is None for shape in shapes):
        raise InputError(
            f"{name}: some tensor shapes cannot be inferred. Export with a fixed image size."
        )
    for shape in shapes:
        check_shape(shape, name, "a tensor")
    return copy


def _drop_listed_constants(model: ModelWrapper) -> None:
    """Leave only the image among the graph's inputs: old exporters list the constants too."""
    constants = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(images)


def _separate_equal_inputs(model: ModelWrapper) -> None:
    """Let no node read a tensor twice, as in x + x: QONNX renames only the first of them."""
    for node in list(model.graph.node):
        for index, name in enumerate(node.input):
            if name and name in node.input[:index]:
                output = f"{name}_{node.name}_{index}"
                copy = helper.make_node("Identity", [name], [output], name=f"{node.name}_{index}")
                copy.metadata_props.extend(node.metadata_props)
                model.graph.node.insert(list(model.graph.node).index(node), copy)
                node.input[index] = output


def source_of(node: NodeProto) -> str:
    """The name ``node`` has in the exported file, which tells the PyTorch module."""
    return _property(node, _SOURCE) or str(node.name)


def position_of(node: NodeProto) -> int:
    """Where ``node`` stands in the exported file; exporters write nodes in order of execution."""
    return int(_property(node, _POSITION) or 0)


def _remember_source(node: NodeProto, position: int) -> None:
    if _property(node, _SOURCE):
        return
    node.metadata_props.add(key=_POSITION, value=str(position))
    name = str(node.name)
    if scopes := _property(node, _SCOPES):  # the dynamo exporter's own names say nothing
        name = "/".join(re.findall(r"'([^']*)'", scopes))  # text of a list of names
    node.metadata_props.add(key=_SOURCE, value=name)


def _property(node: NodeProto, key: str) -> str | None:
    return next((str(p.value) for p in node.metadata_props if p.key == key), None)


def _batch(model: ModelWrapper) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)


def _check(proto: ModelProto, name: str) -> None:
    graph = proto.graph
    if not graph.node:
        raise InputError(f"{name}: no ONNX graph in it. {_EXPORT}.")
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InputError(
            f"{name}: {len(inputs)} inputs and {len(graph.output)} outputs, but one image input "
            "and one logits output are expected. Export only the classifier."
        )
    if not inputs[0].type.tensor_type.shape.dim:
        raise InputError(f"{name}: its input has no shape. Export with a fixed image size.")
    ops = {node.op_type for node in graph.node}
    if not ops & set(QUANTIZERS):
        found = "QuantizeLinear (QCDQ) nodes" if "QuantizeLinear" in ops else "a float ONNX model"
        raise InputError(f"{name}: no QONNX: no Quant node, {found}. {_EXPORT}.")


class LoweringError(InputError):
    """A node cannot become integers; the message names it and says what to change.

    Attributes:
        node: the node, of the cleaned model.
        problem: why it cannot.
        remedy: what to change.
    """

    def __init__(self, node: NodeProto, problem: str, remedy: str) -> None:
        self.node = node
        self.problem = problem
        self.remedy = remedy
        source = source_of(node)
        where = f"{node.op_type} node {node.name!r}"
        if source not in ("", node.name):
            where += f" (in the file: {source!r})"
        super().__init__(f"{where}: {problem}. {remedy}.")


def refuse(node: NodeProto, problem: str, remedy: str) -> LoweringError:
    """The error for ``node``: its operator, names, the ``problem`` and the ``remedy``."""
    return LoweringError(node, problem, remedy)
