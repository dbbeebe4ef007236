"""What FINN cannot map, said before it starts: one sentence a node, with the remedy.

The rules were measured on finn-plus 1.6.1 with its default steps; FINN itself reports most of
them late and by the names of its own intermediate nodes.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp
from qonnx.util.basic import get_by_name

from fpga_flow.lowering import clean, source_of

_QUANTIZERS = ("Quant", "BipolarQuant")
_AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean")
_MAPPED = {
    "BatchNormalization",
    "Conv",
    "Dropout",
    "Flatten",
    "Gemm",
    "Identity",
    "MatMul",
    "MaxPool",
    "Relu",
    "Reshape",
    "Transpose",
    *_QUANTIZERS,
}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
_ACTIVATION = (
    "FINN's build has no hardware for this activation function",
    "Use QuantReLU, QuantHardTanh or QuantIdentity",
)
_BRANCHES = "FINN's default streamlining cannot join two branches"
# Operators with a better remedy than the general one.
_OPERATORS = {
    "Concat": (f"{_BRANCHES} (a concatenation)", "Use a network without branches"),
    "ConvTranspose": (
        "FINN's build has no transposed convolution",
        "Use strided convolutions; a classifier needs no larger maps",
    ),
    "Pad": ("FINN pads inside convolutions only", "Set padding=... of the convolution behind it"),
    **dict.fromkeys(
        ("LogSoftmax", "Softmax"),
        (
            "FINN's build computes integers, no softmax",
            "Take it out of the exported model: the logits rank the classes alike, and the host "
            "can apply it",
        ),
    ),
    **dict.fromkeys(
        (
            "Celu",
            "Clip",
            "Elu",
            "Erf",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "PRelu",
            "Selu",
            "Sigmoid",
            "Softplus",
            "Tanh",
        ),
        _ACTIVATION,
    ),
    **dict.fromkeys(
        ("Resize", "Upsample"),
        ("FINN's build has no upsampling", "Use layers that keep or shrink the map"),
    ),
}
# Modules inside a Brevitas layer.
_INSIDE = re.compile(r"(^|\.)(weight|bias|act|input|output|trunc)_quant(\.|$)")


@dataclass(frozen=True)
class Finding:
    """A node FINN cannot map.

    Attributes:
        node: its name in the exported file.
        op: its operator.
        problem: what FINN lacks.
        remedy: what to change in the network.
    """

    node: str
    op: str
    problem: str
    remedy: str

    @property
    def layer(self) -> str:
        """The PyTorch module's name, as in ``model.named_modules()``; empty: not told, or itself.

        Example:
            >>> Finding("/features/features.0/weight_quant/export_handler/Quant", "", "", "").layer
            'features.0'
        """
        path = ""
        for part in self.node.strip("/").split("/")[:-1]:
            # Exporters write a module inside another with its whole name, or with its own.
            path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
        return _INSIDE.split(path)[0]

    def __str__(self) -> str:
        layer = f"layer {self.layer!r}, " if self.layer else ""
        return f"{layer}{self.op} node {self.node!r}: {self.problem}. {self.remedy}."


def legality(onnx_path: Path) -> list[Finding]:
    """Find the nodes of a QONNX file that FINN's default build has no hardware for.

    Args:
        onnx_path: a QONNX file.

    Returns:
        findings in network order; none does not promise that FINN takes the network.

    Raises:
        InputError: no ONNX file, or no QONNX in it.

    Example:
        >>> [finding.node for finding in legality(Path("model.onnx"))]  # doctest: +SKIP
        ['/features/7/AveragePool']
    """
    model = clean(Path(onnx_path))
    findings = []
    for node in model.graph.node:
        said = _check(model, node)
        if said is not None:
            findings.append(Finding(source_of(node), node.op_type, *said))
    return findings


def _check(model: ModelWrapper, node: NodeProto) -> tuple[str, str] | None:
    if node.op_type in _AVERAGES:
        return (
            "FINN has no average pooling between its layers",
            "Use MaxPool2d, a strided convolution, or a QuantLinear on the flattened map",
        )
    if node.op_type == "Trunc":
        return (
            "FINN maps truncating average pooling only in special places",
            "Use MaxPool2d or a strided convolution instead of TruncAvgPool2d",
        )
    if node.op_type in _ARITHMETIC:
        if sum(model.get_initializer(name) is None for name in node.input) > 1:
            return (
                f"{_BRANCHES} (a residual connection)",
                "Use a network without skip connections",
            )
        return None
    if node.op_type in ("Conv", "MatMul", "Gemm"):
        return _check_layer(model, node)
    if node.op_type in _QUANTIZERS:
        return _check_quantizer(model, node)
    if node.op_type == "MaxPool":
        return _check_pool(model, node)
    if node.op_type in _OPERATORS:
        return _OPERATORS[node.op_type]
    if node.op_type not in _MAPPED:
        return (
            "FINN has no hardware for this operator",
            "Replace it by convolutions, linear layers, batch norm, quantized ReLU or max "
            "pooling, or leave it to the host behind the logits",
        )
    return None


def _check_layer(model: ModelWrapper, node: NodeProto) -> tuple[str, str] | None:
    weights = model.find_producer(node.input[1])
    while weights is not None and weights.op_type in ("Transpose", "Reshape"):
        weights = model.find_producer(weights.input[0])
    if weights is None or weights.op_type not in _QUANTIZERS:
        return "its weights are floats", "Give the layer a weight quantizer (weight_quant=...)"
    quantizer = _quantizer(model, node.input[0])
    if quantizer is None:
        return "its input is float", "Put a QuantIdentity or a QuantReLU in front of it"
    if node.op_type != "Conv":
        return None
    pads = get_by_name(node.attribute, "pads")
    if quantizer.op_type == "BipolarQuant" and pads is not None and any(pads.ints):
        return (
            "its padding adds zeros, which one-bit activations (-1 and +1) do not have",
            "Set padding=0, or use activations of at least 2 bits",
        )
    return _check_groups(model, node)


def _check_groups(model: ModelWrapper, node: NodeProto) -> tuple[str, str] | None:
    group = get_by_name(node.attribute, "group")
    groups = 1 if group is None else group.i
    inputs = model.get_tensor_shape(node.input[0])[1]
    outputs = model.get_tensor_shape(node.output[0])[1]
    if groups == 1 or groups == inputs == outputs:
        return None
    return (
        f"FINN maps dense convolutions and depthwise ones with as many outputs as inputs, not "
        f"{groups} groups from {inputs} to {outputs} channels",
        f"Use groups=1, or groups={inputs} with {inputs} output channels",
    )


def _check_pool(model: ModelWrapper, node: NodeProto) -> tuple[str, str] | None:
    if _quantizer(model, node.input[0]) is None:
        return (
            "FINN pools integer codes, and its input is float",
            "Put the quantized activation in front of the pool: the maximum is the same",
        )
    ceil = get_by_name(node.attribute, "ceil_mode")
    if ceil is not None and ceil.i:
        return "FINN ignores ceil_mode", "Set ceil_mode=False"
    dilations = get_by_name(node.attribute, "dilations")
    if dilations is not None and set(dilations.ints) != {1}:
        return "FINN ignores the dilation of a pool", "Set dilation=1"
    return None


def _quantizer(model: ModelWrapper, tensor: str) -> NodeProto | None:
    """The quantizer (or sum) before ``tensor``, with nothing but reordering in between."""
    node = model.find_producer(tensor)
    while node is not None and node.op_type in (
        "MaxPool",
        "Flatten",
        "Reshape",
        "Transpose",
        "Identity",
        "Dropout",
        "Pad",
        "Resize",
        "Upsample",
        *_AVERAGES,
        "Trunc",
    ):
        node = model.find_producer(node.input[0])
    return node if node is not None and node.op_type in (*_QUANTIZERS, "Add") else None


def _check_quantizer(model: ModelWrapper, node: NodeProto) -> tuple[str, str] | None:
    before = model.find_producer(node.input[0])
    behind_relu = before is not None and before.op_type == "Relu"
    if node.op_type == "BipolarQuant":
        if behind_relu:
            return (
                "a one-bit ReLU is exported as the sign of a number that is never negative",
                "Use at least 2 bits, or a binary quantizer (-1, +1) in QuantIdentity",
            )
        return None
    _, zero_point, bits = (model.get_initializer(name) for name in node.input[1:4])
    if zero_point is None or bits is None:
        return "its zero point or bit width is computed", "Use a quantizer of constant bit width"
    if np.any(zero_point != 0):
        return "FINN takes no zero point", "Use a symmetric quantizer"
    operator = getCustomOp(node)
    rounding = operator.get_nodeattr("rounding_mode").upper()
    if rounding not in ("ROUND", "HALF_EVEN"):
        return f"FINN rounds to nearest, not {rounding}", "Use float_to_int_impl_type='round'"
    if model.get_initializer(node.input[0]) is not None:
        return None
    if bits.item() > 8:
        return (
            f"FINN builds thresholds for at most 8 bits, not {bits.item():g}",
            "Use an activation bit width of 8 or less",
        )
    scale = model.get_initializer(node.input[1])
    if scale is not None and np.ptp(scale) > 0:
        return (
            "FINN takes one scale for all channels of an activation",
            "Use one scale a tensor (scaling_per_output_channel=False)",
        )
    signed, narrow = operator.get_nodeattr("signed"), operator.get_nodeattr("narrow")
    if behind_relu and (signed or narrow):
        return (
            "FINN takes unsigned codes of full range behind a ReLU",
            "Use an unsigned activation quantizer with narrow_range=False in QuantReLU",
        )
    return None
