"""Operators before the first quantizer, written so that every engine rounds them alike.

One float32 Mul or Add is the same in PyTorch, ONNX Runtime and NumPy. A batch norm is not: each
library orders its multiplications in its own way. A batch norm on the image becomes one Mul and
one Add, and what changes nothing goes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper
from qonnx.core.modelwrapper import ModelWrapper

from fpga_flow.lowering.attributes import attribute

_ARITHMETIC = ("Mul", "Add", "Sub", "Div")
_PASSED = (
    "Flatten",
    "Identity",
    "Pad",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Dropout",
    "Cast",
)


def explicit_preamble(model: ModelWrapper) -> bool:
    """Rewrite the operators that read the image before any quantizer; whether any was.

    Args:
        model: cleaned; changed in place. A replaced batch norm's Mul and Add have its metadata.
    """
    image = {str(model.graph.input[0].name)}
    changed = False
    for node in list(model.graph.node):
        if not node.input or node.input[0] not in image:
            moving = [name for name in node.input if name in image]
            if not moving or node.op_type not in _ARITHMETIC:
                continue
        if node.op_type in _ARITHMETIC or node.op_type in _PASSED:
            image.add(str(node.output[0]))
        if node.op_type == "BatchNormalization" and _constant(model, node):
            _replace(model, node, _mul_add(model, node))
            image.add(str(node.output[0]))
            changed = True
        elif node.op_type == "Cast" and attribute(node, "to", 0) == TensorProto.FLOAT:
            _replace(model, node, [_node("Identity", node, node.input[0], output=node.output[0])])
            changed = True
    return changed


def scale_and_shift(
    gamma: npt.NDArray[np.float64],
    beta: npt.NDArray[np.float64],
    mean: npt.NDArray[np.float64],
    variance: npt.NDArray[np.float64],
    epsilon: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A batch norm in evaluation mode as ``x * scale + shift``; all arrays are (C,).

    Computed in float64 and rounded once.
    """
    factor = gamma / np.sqrt(variance + epsilon)
    return factor.astype(np.float32), (beta - mean * factor).astype(np.float32)


def _constant(model: ModelWrapper, node: NodeProto) -> bool:
    """Whether the batch norm is in evaluation mode and has usable statistics."""
    arrays = [model.get_initializer(name) for name in node.input[1:5]]
    if attribute(node, "training_mode", 0) or len(arrays) < 4 or any(a is None for a in arrays):
        return False
    return bool((arrays[3] + float(attribute(node, "epsilon", 1e-5)) > 0).all())


def _mul_add(model: ModelWrapper, node: NodeProto) -> list[NodeProto]:
    gamma, beta, mean, variance = (
        np.asarray(model.get_initializer(name), dtype=np.float64) for name in node.input[1:5]
    )
    epsilon = float(attribute(node, "epsilon", 1e-5))
    column = (1, -1, *[1] * (len(model.get_tensor_shape(node.input[0])) - 2))
    names = [f"{node.output[0]}_{part}" for part in ("scale", "shift", "scaled")]
    for name, array in zip(
        names, scale_and_shift(gamma, beta, mean, variance, epsilon), strict=False
    ):
        model.set_initializer(name, array.reshape(column))
    scale, shift, scaled = names
    return [
        _node("Mul", node, node.input[0], scale, output=scaled),
        _node("Add", node, scaled, shift, output=node.output[0]),
    ]


def _node(op: str, like: NodeProto, *inputs: str, output: str) -> NodeProto:
    made = helper.make_node(op, list(inputs), [output], name=f"{like.name}_{op}")
    made.metadata_props.extend(like.metadata_props)
    return made


def _replace(model: ModelWrapper, node: NodeProto, by: Sequence[NodeProto]) -> None:
    at = list(model.graph.node).index(node)
    model.graph.node.remove(node)
    for offset, new in enumerate(by):
        model.graph.node.insert(at + offset, new)
