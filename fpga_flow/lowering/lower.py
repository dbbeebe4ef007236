"""QONNX to integers: one walk over the cleaned graph.

Reads a QONNX file (either Brevitas exporter), writes a ``Network``. Between two quantizers
nothing is computed, only remembered (see ``affine``); each operator is one function below.
"""

from collections.abc import Callable
from pathlib import Path

from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import InputError
from fpga_flow.lowering import elementwise, linear, pooling
from fpga_flow.lowering.affine import Affine, Float
from fpga_flow.lowering.concat import concat
from fpga_flow.lowering.context import Context, Site
from fpga_flow.lowering.inputs import InputQuant, input_range_of
from fpga_flow.lowering.model import clean, refuse
from fpga_flow.lowering.network import Network, OutputAffine
from fpga_flow.lowering.pad import pad
from fpga_flow.lowering.quantize import quantize
from fpga_flow.lowering.truncate import truncate

_OPERATORS: dict[str, Callable[[Context, NodeProto], None]] = {
    "Quant": quantize,
    "BipolarQuant": quantize,
    "Trunc": truncate,
    "Conv": linear.conv,
    "MatMul": linear.matmul,
    "Gemm": linear.gemm,
    "Mul": elementwise.arithmetic,
    "Add": elementwise.arithmetic,
    "Sub": elementwise.arithmetic,
    "Div": elementwise.arithmetic,
    "BatchNormalization": elementwise.batch_norm,
    "Relu": elementwise.relu,
    "Clip": elementwise.clip,
    "MaxPool": pooling.max_pool,
    "AveragePool": pooling.average_pool,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "ReduceMean": pooling.reduction,
    "ReduceSum": pooling.reduction,
    "ReduceMax": pooling.reduction,
    "Pad": pad,
    "Concat": concat,
    "Flatten": elementwise.reshape,
    "Reshape": elementwise.reshape,
    "Squeeze": elementwise.reshape,
    "Unsqueeze": elementwise.reshape,
    "Transpose": elementwise.transpose,
    "Identity": elementwise.identity,
    "Dropout": elementwise.identity,
}

_REMEDIES = {
    "Softmax": "Export logits, without the softmax",
    "LogSoftmax": "Export logits, without the log-softmax",
    "ArgMax": "Export logits; take the arg max of what the engine returns",
    "QuantizeLinear": "Export QONNX (Quant nodes) instead of QCDQ",
}


def lower(model: Path | str | ModelWrapper) -> Network:
    """Turn a QONNX model into integer layers and thresholds.

    Args:
        model: a QONNX file or model, plain or cleaned, batch 1 or any; it is not changed.

    Returns:
        the network; layer and tensor names are those of ``clean(model)``.

    Raises:
        InputError: no file, no ONNX, no QONNX, damaged.
        LoweringError: a node that cannot become integers, named, with the remedy.

    Example:
        >>> network = lower("model.onnx")
        >>> [row.accumulator_bits for row in network.describe()]
        [None, 15, None, 11, None, None, None, 13]
    """
    return trace(clean(model))[0]


def trace(model: ModelWrapper) -> tuple[Network, list[Site]]:
    """Lower a cleaned model; also tell each activation quantizer's thresholds and parameter."""
    ctx = Context(model)
    image = model.graph.input[0].name
    ctx.values[image] = Float(ctx.file_shape(image))
    for node in model.graph.node:
        if node.op_type not in _OPERATORS:
            remedy = _REMEDIES.get(
                node.op_type, f"Supported are {', '.join(_OPERATORS)}; rewrite the layer with those"
            )
            raise refuse(node, "this operator cannot become integers", remedy)
        try:
            _OPERATORS[node.op_type](ctx, node)
        except (ArithmeticError, LookupError, TypeError, ValueError) as e:
            problem = f"its inputs or attributes are malformed ({e})"
            raise refuse(node, problem, "Export the model again") from e
    return Network(
        input=_input(ctx),
        layers=tuple(ctx.layers),
        output=_output(ctx, model.graph.output[0].name),
        input_shape=ctx.file_shape(image),
        input_range=input_range_of(model),
    ), ctx.sites


def _input(ctx: Context) -> InputQuant:
    if ctx.input is None:
        raise InputError(
            "The model quantizes only weights, never the image: its arithmetic is float. "
            "Put an activation quantizer first (Brevitas: QuantIdentity as first layer)."
        )
    return ctx.input


def _output(ctx: Context, name: str) -> OutputAffine:
    value = ctx.values.get(name)
    if not isinstance(value, Affine) or value.clipped:
        raise InputError(
            f"The model's output {name!r} is no affine function of integers (it ends with a "
            "ReLU or does not follow from the image). Export logits as the last linear layer "
            "gives them."
        )
    if any(n != 1 for n in value.shape[1:]):
        raise InputError(
            f"The model's output has shape (N, {', '.join(map(str, value.shape))}), but logits "
            "(N, classes) are expected. Pool and flatten before the last layer."
        )
    return OutputAffine(value.ref, value.scale, value.bias)
