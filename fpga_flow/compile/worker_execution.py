"""Execute FINN's step models in Python, inside the worker process.

FINN and QONNX execute one image at a time, 3 to 10 ms each, nearly all of it overhead. Here a
batch goes through the graph node by node, by the operators' own ``execute_node``. Operators that
are known to take a batch get it whole. QONNX's Im2Col mixes up the images of a batch, but treats
channels alike: there the batch becomes channels of one image. Every other operator is executed
image by image.
"""

import copy
import functools
import os
import resource
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_node
from qonnx.custom_op.registry import getCustomOp
from qonnx.util.basic import get_preferred_qonnx_opset

from fpga_flow.compile.integer_graph import STEP, TENSOR
from fpga_flow.compile.worker_build import PARENT, STEP_NAMES
from fpga_flow.untrusted.onnx_file import read_step

Array = npt.NDArray[Any]
CHUNK = 64
_ROUNDING = 1e-2  # as in QONNX
_WHOLE_BATCH = {
    "Quant",
    "MultiThreshold",
    "MaxPoolNHWC",
    "FMPadding",
    "GlobalAccPool",
    "MVAU",
    "Thresholding",
    "Pool",
    "StreamingConcat",
}
_CHANNELS_ALIKE = {"Im2Col", "ConvolutionInputGenerator"}
_HARDWARE = "finn.custom_op.fpgadataflow"
_PARTITION = "StreamingDataflowPartition"
# What the models of a build consist of; a file of somebody else's may name anything.
_LAYERS = [
    "ConvolutionInputGenerator",
    "DuplicateStreams",
    "ElementwiseAdd",
    "FMPadding",
    "GlobalAccPool",
    "MVAU",
    "Pool",
    "StreamingConcat",
    "StreamingDataWidthConverter",
    "Thresholding",
    "VVAU",
]
OPERATORS: dict[str, Collection[str]] = {
    "": [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "Div",
        "Dropout",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "MatMul",
        "MaxPool",
        "Mul",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Sign",
        "Sub",
        "Transpose",
    ],
    "qonnx.custom_op.general": [
        "BipolarQuant",
        "Im2Col",
        "MaxPoolNHWC",
        "MultiThreshold",
        "Quant",
        "XnorPopcountMatMul",
    ],
    _HARDWARE: _LAYERS,
    f"{_HARDWARE}.hls": [f"{name}_hls" for name in _LAYERS],
    f"{_HARDWARE}.rtl": [f"{name}_rtl" for name in _LAYERS],
}
_OF_THE_HOST = {**OPERATORS, _HARDWARE: [*_LAYERS, _PARTITION]}
# Steps that replace one of these, such as our folding solver, come behind.
_ON_HOST = STEP_NAMES[: STEP_NAMES.index("step_create_dataflow_partition")]


def execute_step(job: dict[str, Any]) -> None:
    """Run one step's model over all images and write the results.

    Args:
        job: ``models`` (folder), ``step``, ``images`` (.npz with ``x``: codes or floats, NCHW),
            ``output`` (.npz to write: ``output`` float32 (N, classes), ``names``, the QONNX
            tensors of the activations, and ``codes_0``, ``codes_1``, ... int16, theirs, NCHW or
            (N, features)).
    """
    folder, step = Path(job["models"]), str(job["step"])
    _bound_memory()
    model = _load(folder / f"{step}.onnx")
    # From the partition on, the models hold the accelerator; what is left on the host (the
    # transpose to NHWC, say) is in the parent.
    inside = step not in _ON_HOST
    parent = _load(folder / f"{PARENT}.onnx") if inside else None
    with np.load(job["images"], allow_pickle=False) as file:
        images = file["x"].astype(np.float32)
    chunks = [
        _run(model, parent, images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)
    ]
    names = list(chunks[0][1])
    joined = {
        f"codes_{k}": np.concatenate([codes[name] for _, codes in chunks]).astype(np.int16)
        for k, name in enumerate(names)
    }
    output = np.concatenate([last for last, _ in chunks])
    np.savez(job["output"], allow_pickle=False, output=output, names=names, **joined)


def _load(path: Path) -> ModelWrapper:
    """A model whose hardware layers are executed by their Python definitions."""
    return _loaded(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _loaded(path: Path, written: int) -> ModelWrapper:
    from finn.util.verification import despecialize_model

    operators = _OF_THE_HOST if path.stem == PARENT else OPERATORS
    return despecialize_model(ModelWrapper(read_step(path, operators)))


def _bound_memory() -> None:
    """No more than the machine has: what asks for more fails here, and takes nobody else along."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def execute(
    model: ModelWrapper, images: Array, child: ModelWrapper | None = None
) -> dict[str, Array]:
    """Execute a model over a batch.

    Args:
        model: at batch 1, executable in Python (despecialised).
        images: float32 (N, ...), the graph's one input.
        child: the model behind a StreamingDataflowPartition node, where there is one.

    Returns:
        every tensor by name, batch first; those of ``child`` too.
    """
    wide = _widen(model, len(images))
    context: dict[str, Array] = wide.make_empty_exec_context()
    context[model.graph.input[0].name] = images
    inside: dict[str, Array] = {}
    still = {tensor.name for tensor in model.graph.initializer}  # the same for every image
    for single, node in zip(model.graph.node, wide.graph.node, strict=True):
        if node.op_type == _PARTITION and child is not None:
            inside = execute(child, context[node.input[0]])
            context[node.output[0]] = inside[child.graph.output[0].name]
            continue
        moving = [name for name in node.input if name not in still]
        if not moving or node.op_type in _WHOLE_BATCH or node.domain in ("", "ai.onnx"):
            execute_node(node, context, wide.graph, _opset(wide, node))
        elif node.op_type in _CHANNELS_ALIKE:
            _images_as_channels(model, single, context)
        else:
            _image_by_image(model, single, context, set(moving))
        if moving:
            _make_whole(model, node, context)
        else:
            still.update(node.output)
    return {**inside, **context}


def activation_codes(model: ModelWrapper, context: dict[str, Array]) -> dict[str, Array]:
    """The integers behind every activation quantizer.

    Args:
        model: the executed model.
        context: its tensors, as ``execute`` returns them.

    Returns:
        int64 arrays, NCHW or (N, features), -1 and +1 for one-bit activations, by the QONNX tensor
        that step_integer_network recorded; in a model without that step by number, "0", "1", ...
    """
    found: dict[str, Array] = {}
    for node in model.graph.node:
        values = _code_values(model, node, context)
        if values is not None:
            channels_last = node.op_type not in ("Quant", "BipolarQuant") and (
                node.op_type != "MultiThreshold"
                or getCustomOp(node).get_nodeattr("data_layout") == "NHWC"
            )
            if values.ndim == 4 and channels_last:
                values = values.transpose(0, 3, 1, 2)
            name = code_tensor(model, node) or str(len(found))
            found[name] = np.rint(values).astype(np.int64)
    return found


def code_tensor(model: ModelWrapper, node: NodeProto) -> str | None:
    """The QONNX tensor that a node's codes are of, as step_integer_network recorded it."""
    tensor: str | None = _noted(model, node).get(TENSOR)
    return tensor


def _noted(model: ModelWrapper, node: NodeProto) -> dict[str, Any]:
    noted = (model.get_tensor_sparsity(name) for name in node.input)
    return next((one for one in noted if one and TENSOR in one), {})


def _code_values(model: ModelWrapper, node: NodeProto, context: dict[str, Array]) -> Array | None:
    output = node.output[0]
    if node.op_type in ("Quant", "BipolarQuant"):
        if model.get_initializer(node.input[0]) is not None:
            return None  # a weight
        scale = model.get_initializer(node.input[1]).astype(np.float64)
        return np.asarray(context[output] / scale)
    steps = _threshold_count(model, node)
    if steps is None:
        return None
    if steps == 1 and _noted(model, node).get(STEP, 2) == 2:
        return np.where(context[output] > 0, 1, -1)
    add = _code_add(model, node) if node.op_type == "MultiThreshold" else None
    return context[output if add is None else add.output[0]]


def _threshold_count(model: ModelWrapper, node: NodeProto) -> int | None:
    if node.op_type in ("MultiThreshold", "Thresholding"):
        return int(model.get_tensor_shape(node.input[1])[-1])
    if node.op_type in ("MVAU", "VVAU") and not getCustomOp(node).get_nodeattr("noActivation"):
        return int(model.get_tensor_shape(node.input[2])[-1])
    return None


def _code_add(model: ModelWrapper, node: NodeProto) -> NodeProto | None:
    """The Add of a whole number that FINN's own conversion puts behind a MultiThreshold."""
    consumers = model.find_consumers(node.output[0]) or []
    if len(consumers) != 1 or consumers[0].op_type != "Add":
        return None
    constant = model.get_initializer(consumers[0].input[1])
    if constant is None or constant.size != 1 or constant.item() != round(constant.item()):
        return None
    return consumers[0]


def _run(
    model: ModelWrapper, parent: ModelWrapper | None, images: Array
) -> tuple[Array, dict[str, Array]]:
    if parent is None:
        context = execute(model, images)
        output = context[model.graph.output[0].name]
    else:
        context = execute(parent, images, model)
        output = context[parent.graph.output[0].name]
    return output.reshape(len(images), -1), activation_codes(model, context)


def _widen(model: ModelWrapper, batch: int) -> ModelWrapper:
    """A copy of ``model`` whose images come ``batch`` at a time."""
    wide = copy.deepcopy(model)
    moving = {wide.graph.input[0].name}
    for node in wide.graph.node:
        if moving.intersection(node.input):
            moving.update(node.output)
            if node.op_type == "Reshape" and node.domain == "":
                target = wide.get_initializer(node.input[1]).copy()
                target[0] *= batch
                wide.set_initializer(node.input[1], target)
            for attribute in node.attribute:
                if attribute.name == "numInputVectors":
                    attribute.ints[0] *= batch
    for tensor in (*wide.graph.input, *wide.graph.value_info, *wide.graph.output):
        if tensor.name in moving:
            axis = tensor.type.tensor_type.shape.dim[0]
            if axis.dim_value != 1:
                raise RuntimeError(f"tensor {tensor.name} has no batch axis of 1")
            axis.dim_value = batch
    return wide


def _make_whole(model: ModelWrapper, node: NodeProto, context: dict[str, Array]) -> None:
    """Round what is declared an integer, as QONNX does between nodes.

    Raises:
        RuntimeError: it is no integer, or overflows the wires of a hardware layer. (Before the
            hardware, FINN's own annotations can be too narrow for a moment.)
    """
    for name in node.output:
        declared = model.get_tensor_datatype(name)
        if declared.is_integer():
            values = context[name]
            whole = np.rint(values)
            if np.abs(values - whole).max() > _ROUNDING:
                raise RuntimeError(f"{name} is declared {declared.name}, but is no integer")
            in_hardware = node.domain.startswith(_HARDWARE)
            if in_hardware and (whole.min() < declared.min() or whole.max() > declared.max()):
                raise RuntimeError(
                    f"{name} holds {whole.min():g} to {whole.max():g}, outside {declared.name}"
                )
            context[name] = whole


def _images_as_channels(model: ModelWrapper, node: NodeProto, context: dict[str, Array]) -> None:
    images = context[node.input[0]]  # (N, H, W, C)
    count, height, width, channels = images.shape
    folded = images.transpose(1, 2, 0, 3).reshape(1, height, width, count * channels)
    _, out_height, out_width, columns = model.get_tensor_shape(node.output[0])
    one = {
        node.input[0]: folded,
        node.output[0]: np.zeros((1, out_height, out_width, columns * count), dtype=np.float32),
    }
    execute_node(node, one, model.graph, _opset(model, node))
    windows = one[node.output[0]].reshape(out_height, out_width, -1, count, channels)
    context[node.output[0]] = windows.transpose(3, 0, 1, 2, 4).reshape(
        count, out_height, out_width, columns
    )


def _image_by_image(
    model: ModelWrapper, node: NodeProto, context: dict[str, Array], moving: set[str]
) -> None:
    images = max(len(context[name]) for name in moving)
    rows: dict[str, list[Array]] = {name: [] for name in node.output}
    for k in range(images):
        one = {
            name: context[name][k : k + 1] if name in moving else context[name]
            for name in node.input
        }
        for name in node.output:
            one[name] = np.zeros(model.get_tensor_shape(name), dtype=np.float32)
        execute_node(node, one, model.graph, _opset(model, node))
        for name in node.output:
            rows[name].append(one[name])
    context.update({name: np.concatenate(parts) for name, parts in rows.items()})


def _opset(model: ModelWrapper, node: NodeProto) -> int:
    return int(model.get_opset_imports().get(node.domain, get_preferred_qonnx_opset()))
