"""The integer network as the graph FINN is given.

FINN's own conversion of QONNX moves scales, biases and signs through the network in float32, and
stumbles over many that it could build. Here the lowering has done that work: FINN gets integer
weights, exact integer thresholds and maps that are channels last from the first layer on. What is
left to its streamlining is nothing.

One-bit codes (0/1 and -1/+1) become two-bit ones of the same values, or bits (see ``codes``); a
negative scale changes the sign of the weights in front of it; padding rows that no pixel of a
one-wide map reaches are left out. ``obstacles`` says which networks have no such graph.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.basic import qonnx_make_model

from fpga_flow.compile.axes import Axis, axes, depthwise_windows, weights_along
from fpga_flow.compile.codes import OneBit, code_type, readers, threshold_steps
from fpga_flow.compile.obstacles import entry, vectors
from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.ir import (
    Add,
    Concat,
    Conv,
    IntArray,
    MatMul,
    MaxPool,
    Reshape,
    SumPool,
    Threshold,
    bits_for,
)

_GENERAL = "qonnx.custom_op.general"
_HARDWARE = "finn.custom_op.fpgadataflow"
TENSOR, STEP = "divqat", "step"
"""Annotations of a threshold tensor: the QONNX tensor that its codes are of, and their distance."""
_CODES = 256  # that a quantizer of branches can have
_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


@dataclass
class _Builder:
    """The growing graph. Tensors are named as in the network; vectors are (1, features)."""

    network: Network
    reading: dict[str, list[Layer]]
    one_bit: OneBit
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: dict[str, tuple[tuple[int, ...], Any]] = field(default_factory=dict)
    constants: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    sparsity: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Where a tensor of the network is found, and in which order its features came.
    names: dict[str, str] = field(default_factory=dict)
    orders: dict[str, IntArray] = field(default_factory=dict)

    def node(
        self,
        op: str,
        inputs: list[str],
        output: str,
        shape: tuple[int, ...],
        datatype: Any,
        **attributes: Any,
    ) -> str:
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=f"{op}_{len(self.nodes)}", **attributes)
        )
        self.tensors[output] = (shape, datatype)
        return output

    def constant(self, name: str, values: Any, datatype: Any) -> str:
        self.constants[name] = (np.asarray(values, dtype=np.float32), datatype)
        return name

    def add(self, layer: Layer) -> None:
        source = layer.inputs[0]
        x = self.names[source]
        order = self.orders.get(source)
        match layer:
            case Conv():
                self.names[layer.output] = self._conv(layer, x)
            case MatMul():
                weight = layer.weight if order is None else layer.weight[order]
                self.names[layer.output] = self._product(layer, x, weight * self._signs(layer))
            case MaxPool():
                self.names[layer.output] = self._pool(layer, x)
            case Threshold():
                self.names[layer.output] = self._threshold(layer, x)
            case SumPool():
                self.names[layer.output] = self._sum(layer, x)
            case Add():
                self.names[layer.output] = self._join(layer)
            case Concat():
                self.names[layer.output] = self._concat(layer)
            case _:
                self._reshape(layer, x)

    def _signs(self, layer: Conv | MatMul) -> IntArray:
        """±1 an output: what the thresholds behind it compare, by the weights' signs."""
        after = self.reading.get(layer.output, [])
        while after and isinstance(after[0], Reshape):
            after = self.reading.get(after[0].output, [])
        if after and isinstance(after[0], Threshold):
            return after[0].signs
        return np.ones(layer.shape[0], dtype=np.int64)

    def _product(self, layer: Conv | MatMul, x: str, weight: IntArray) -> str:
        """``weight`` is (in, out)."""
        shape, _ = self.tensors[x]
        name = self.constant(f"{layer.name}_weight", weight, _weight_type(layer, weight))
        size = (*shape[:-1], weight.shape[1])
        return self.node("MatMul", [x, name], layer.output, size, DataType["INT32"])

    def _conv(self, layer: Conv, x: str) -> str:
        before = self.network.layer(layer.inputs[0])
        high, wide = axes(layer, before.shape)
        weight = layer.weight * self._signs(layer)[:, None, None, None]
        weight = weights_along(weight, high, wide)
        depthwise = depthwise_windows(layer, before.shape)
        if layer.groups > 1:
            weight = _dense(weight, layer.groups)
        if depthwise:
            sparsity = {"dw": {"kernel_shape": [high.kernel, wide.kernel]}}
            self.sparsity[f"{layer.name}_weight"] = sparsity
        if not (high.trivial and wide.trivial):
            if high.whole and wide.whole and not depthwise:
                x = self._flat(x, f"{layer.name}_window")
            else:
                x = self._windows(layer, x, high, wide, depthwise)
        return self._product(layer, x, weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))

    def _windows(self, layer: Conv, x: str, high: Axis, wide: Axis, depthwise: bool) -> str:
        (_, height, width, channels), datatype = self.tensors[x]
        return self.node(
            "Im2Col",
            [x],
            f"{layer.name}_windows",
            (1, high.out, wide.out, channels * high.kernel * wide.kernel),
            datatype,
            domain=_GENERAL,
            stride=[high.stride, wide.stride],
            kernel_size=[high.kernel, wide.kernel],
            pad_amount=[high.before, wide.before, high.after, wide.after],
            dilations=[high.dilation, wide.dilation],
            input_shape=f"(1,{height},{width},{channels})",
            depthwise=int(depthwise),
        )

    def _pool(self, layer: MaxPool, x: str) -> str:
        shape, datatype = self.tensors[x]
        high, wide = axes(layer, self.network.layer(layer.inputs[0]).shape)
        if high.trivial and wide.trivial:
            return x
        _, height, width, channels = shape
        first = self.node(
            "Transpose",
            [x],
            f"{layer.name}_first",
            (1, channels, height, width),
            datatype,
            perm=_TO_FIRST,
        )
        pooled = self.node(
            "MaxPool",
            [first],
            f"{layer.name}_pooled",
            (1, channels, high.out, wide.out),
            datatype,
            kernel_shape=[high.kernel, wide.kernel],
            strides=[high.stride, wide.stride],
            pads=[high.before, wide.before, high.after, wide.after],
        )
        size = (1, high.out, wide.out, channels)
        return self.node("Transpose", [pooled], layer.output, size, datatype, perm=_TO_LAST)

    def _sum(self, layer: SumPool, x: str) -> str:
        """FINN's own operator: its conversion of an average would add a scale.

        It sums whole maps. Sums of windows are a depthwise convolution by ones.
        """
        shape, datatype = self.tensors[x]
        high, wide = axes(layer, self.network.layer(layer.inputs[0]).shape)
        if high.trivial and wide.trivial:
            return x
        if not (high.whole and wide.whole):
            return self._conv(_by_ones(layer), x)
        return self.node(
            "GlobalAccPool",
            [x],
            layer.output,
            (1, 1, 1, shape[3]),
            _sum_type(layer),
            domain=_HARDWARE,
            backend="fpgadataflow",
            NumChannels=shape[3],
            PE=1,
            inputDataType=datatype.name,
            numInputVectors=list(shape[:3]),
        )

    def _join(self, layer: Add) -> str:
        branches = [self.names[name] for name in layer.inputs]
        shape, _ = self.tensors[branches[0]]
        return self.node("Add", branches, layer.output, shape, _sum_type(layer))

    def _concat(self, layer: Concat) -> str:
        """FINN's own operator, of any number of branches."""
        branches = [self.names[name] for name in layer.inputs]
        kinds = [self.tensors[name] for name in branches]
        *pixels, _ = kinds[0][0]
        low, high = (
            min(int(datatype.min()) for _, datatype in kinds),
            max(int(datatype.max()) for _, datatype in kinds),
        )
        return self.node(
            "StreamingConcat",
            branches,
            layer.output,
            (*pixels, layer.shape[0]),
            code_type(low, high),
            domain=_HARDWARE,
            backend="fpgadataflow",
            SIMD=1,
            ChannelsPerStream=[shape[-1] for shape, _ in kinds],
            inputDataTypes=[datatype.name for _, datatype in kinds],
            numInputVectors=pixels,
            inFIFODepths=[2] * len(branches),
        )

    def _threshold(self, layer: Threshold, x: str) -> str:
        steps, base, datatype = threshold_steps(
            self.one_bit, _unclamped(layer, self.network.layer(layer.inputs[0]))
        )
        shape, _ = self.tensors[x]
        name = self.constant(f"{layer.name}_thresholds", steps, DataType["INT32"])
        # FINN names nodes and tensors anew, and carries annotations of tensors along.
        self.sparsity[name] = {TENSOR: layer.output, STEP: layer.step}
        return self.node(
            "MultiThreshold",
            [x, name],
            layer.output,
            shape,
            datatype,
            domain=_GENERAL,
            data_layout="NHWC" if len(shape) == 4 else "NC",
            out_dtype=datatype.name,
            out_scale=1.0,
            out_bias=float(base),
        )

    def _reshape(self, layer: Layer, x: str) -> None:
        before = self.network.layer(layer.inputs[0])
        if vectors(before, layer):
            self.names[layer.output] = x  # the same stream
            return
        self.names[layer.output] = self._flat(x, layer.output)
        order = np.arange(np.prod(before.shape)).reshape(before.shape)
        self.orders[layer.output] = order.transpose(1, 2, 0).reshape(-1)

    def _flat(self, x: str, output: str) -> str:
        shape, datatype = self.tensors[x]
        if len(shape) == 2:
            return x
        return self.node("Flatten", [x], output, (1, int(np.prod(shape))), datatype, axis=1)

    def model(self, x: str, image: tuple[str, tuple[int, ...], Any]) -> ModelWrapper:
        value = helper.make_tensor_value_info
        shape, _ = self.tensors[x]
        inner = [
            value(name, TensorProto.FLOAT, size)
            for name, (size, _) in self.tensors.items()
            if name not in (x, image[0])
        ]
        graph = helper.make_graph(
            self.nodes,
            "divqat",
            [value(image[0], TensorProto.FLOAT, image[1])],
            [value(x, TensorProto.FLOAT, shape)],
            value_info=inner,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_GENERAL, 1)]
        model = ModelWrapper(qonnx_make_model(graph, opset_imports=opsets))
        for name, (values, datatype) in self.constants.items():
            model.set_initializer(name, values)
            model.set_tensor_datatype(name, datatype)
        for name, sparsity in self.sparsity.items():
            model.set_tensor_sparsity(name, sparsity)
        for name, (_, datatype) in self.tensors.items():
            model.set_tensor_datatype(name, datatype)
        return model


def integer_graph(network: Network, bits: bool = False) -> ModelWrapper:
    """The graph of a network that has no ``obstacles``.

    Args:
        network: a lowered network.
        bits: whether codes may be of one bit, which FINN's own matrix units do not take.

    Returns:
        a model at batch 1: the codes of the image (NCHW, or flattened) go in, the integers of
        ``network.output.tensor`` come out, channels last or (1, features).
    """
    builder = _Builder(network, readers(network), OneBit.of(network) if bits else OneBit())
    first = entry(network)
    datatype = code_type(network.input.quantizer.low, network.input.quantizer.high)
    shape = (1, *first.shape)
    builder.tensors["image"] = (shape, datatype)
    x = "image"
    if len(shape) == 4:
        last = (1, *shape[2:], shape[1])
        x = builder.node("Transpose", ["image"], "image_last", last, datatype, perm=_TO_LAST)
    builder.names[first.output] = x
    started = first is network.input
    for layer in network.layers:
        if started:
            builder.add(layer)
        started = started or layer is first
    return builder.model(builder.names[network.output.tensor], ("image", shape, datatype))


def _dense(weight: IntArray, groups: int) -> IntArray:
    """Weights (out, in / groups, kh, kw) as those of one group, 0 between the groups."""
    outputs, inputs = weight.shape[:2]
    dense = np.zeros((outputs, groups, inputs, *weight.shape[2:]), dtype=np.int64)
    dense[np.arange(outputs), np.arange(outputs) * groups // outputs] = weight
    return dense.reshape(outputs, groups * inputs, *weight.shape[2:])


def _by_ones(layer: SumPool) -> Conv:
    """Sums of windows as a convolution."""
    common = {one.name: getattr(layer, one.name) for one in fields(Layer)}
    return Conv(
        **common,
        weight=np.ones((layer.shape[0], 1, *layer.kernel), dtype=np.int64),
        weight_bits=2,
        strides=layer.strides,
        pads=layer.pads,
        dilations=(1, 1),
        groups=layer.shape[0],
    )


def _sum_type(layer: Add | SumPool) -> Any:
    low, high = int(layer.low.min()), int(layer.high.max())
    return DataType[f"{'U' if low >= 0 else ''}INT{bits_for(low, high)}"]


def _unclamped(layer: Threshold, before: Layer) -> Threshold:
    """``layer``; where it only shifts codes to the left, by thresholds that do so for any code.

    The lowering clamps thresholds to what each channel can reach; without that, hardware sees that
    an identity shortcut's quantizer is wires.
    """
    low, high = int(before.low.min()), int(before.high.max())
    if layer.step != 1 or (layer.signs < 0).any() or high < 1 or high - low > _CODES:
        return layer
    values = np.arange(low, high + 1)
    reached = (before.low[:, None] <= values) & (values <= before.high[:, None])
    codes = layer.base + (layer.thresholds[:, :, None] <= values).sum(axis=1)
    known = (
        codes[reached & (values > 0)]
        // np.broadcast_to(values, codes.shape)[reached & (values > 0)]
    )
    factor = int(known.min()) if known.size else 0
    if factor < 1 or factor & (factor - 1) or (codes != values * factor)[reached].any():
        return layer
    count = layer.thresholds.shape[1]
    row = np.maximum(-((-layer.base - 1 - np.arange(count)) // factor), low)
    return replace(layer, thresholds=np.repeat(row[None], len(codes), axis=0))


def _weight_type(layer: Conv | MatMul, weight: IntArray) -> Any:
    if layer.weight_bits == 1 and np.isin(weight, (-1, 1)).all():
        return DataType["BIPOLAR"]
    low, high = min(-1, int(weight.min())), int(weight.max())
    return DataType[f"INT{max(2, layer.weight_bits, bits_for(low, high))}"]
