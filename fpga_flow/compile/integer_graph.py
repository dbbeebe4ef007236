"""The integer network as the graph FINN is given, and what no such graph exists for.

FINN's own conversion of QONNX moves scales, biases and signs through the network in float32, and
stumbles over many that it could build. Here the lowering has done that work: FINN gets integer
weights, exact integer thresholds and maps that are channels last from the first layer on. What is
left to its streamlining is nothing.

One-bit codes (0/1 and -1/+1) become two-bit ones of the same values; a negative scale changes the
sign of the weights in front of it; padding rows that no pixel of a one-wide map reaches are left
out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.basic import qonnx_make_model

from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.ir import (
    Add,
    Concat,
    Conv,
    IntArray,
    MatMul,
    MaxPool,
    Pad,
    Reshape,
    SumPool,
    Threshold,
    bits_for,
)

_GENERAL = "qonnx.custom_op.general"
_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# FINN's models hold integers as float32, which has them all up to here.
_EXACT = 2**24


@dataclass(frozen=True)
class Obstacle:
    """A layer that has no place in FINN's graph.

    Attributes:
        layer: the layer.
        problem: what FINN has no hardware for.
        remedy: what to change in the network.
    """

    layer: Layer
    problem: str
    remedy: str


@dataclass(frozen=True)
class Axis:
    """One axis of a sliding window, with the numbers FINN takes.

    The kernel's first ``skipped`` rows see nothing but padding and are left out; the others come
    ``spread`` rows apart, with weights of 0 between and behind them.
    """

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    dilation: int
    skipped: int = 0
    spread: int = 1

    @property
    def reach(self) -> int:
        """Pixels a window spans."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def padded(self) -> int:
        """Pixels with padding."""
        return self.size + self.before + self.after

    @property
    def out(self) -> int:
        """Windows along the axis."""
        return (self.padded - self.reach) // self.stride + 1

    @property
    def trivial(self) -> bool:
        """Whether every pixel is a window."""
        return (self.kernel, self.stride, self.before, self.after) == (1, 1, 0, 0)

    @property
    def whole(self) -> bool:
        """Whether the only window is all there is."""
        return self.kernel == self.padded == self.size


def axes(layer: Conv | MaxPool, shape: tuple[int, ...]) -> tuple[Axis, Axis]:
    """The window's axes (height, width) of a layer that reads a map of ``shape``."""
    kernel = layer.weight.shape[2:] if isinstance(layer, Conv) else layer.kernel

    def axis(i: int) -> Axis:
        dilation = layer.dilations[i] if kernel[i] > 1 else 1
        pads = layer.pads[i], layer.pads[i + 2]
        return _alone(Axis(shape[1 + i], kernel[i], layer.strides[i], *pads, dilation))

    high, wide = axis(0), axis(1)
    # FINN picks single pixels, but its counters need three of them along an axis.
    picks = high.kernel == wide.kernel == 1 and max(high.out, wide.out) > 2
    if isinstance(layer, MaxPool) or picks:
        return high, wide
    return _without_gaps(high), _without_gaps(wide)


def _alone(axis: Axis) -> Axis:
    """A single window in the numbers that FINN's generator takes."""
    if axis.out > 1:
        return axis
    row, rest = divmod(axis.before, axis.dilation)
    if axis.size == 1 and rest == 0 and row < axis.kernel:
        # On one pixel: the other rows of the kernel see nothing but padding.
        return Axis(1, 1, 1, 0, 0, 1, skipped=row)
    if axis.stride <= axis.kernel:
        return axis
    # FINN wants strides within the map; the least that leaves one window.
    return replace(axis, stride=axis.padded - axis.reach + 1)


def _without_gaps(axis: Axis) -> Axis:
    """A kernel that reaches to the next window: FINN leaves out no pixels in between."""
    if axis.stride <= axis.reach:
        return axis
    missing = max(0, axis.out * axis.stride - axis.padded)
    return replace(
        axis,
        kernel=axis.stride,
        after=axis.after + missing,
        dilation=1,
        spread=axis.dilation,
    )


def depthwise_windows(layer: Conv, shape: tuple[int, ...]) -> bool:
    """Whether a convolution of a map of ``shape`` becomes FINN's depthwise unit.

    One factor a channel and no window is a dense layer: the unit needs a generator in front.
    """
    return layer.groups > 1 and not all(axis.trivial for axis in axes(layer, shape))


def readers(network: Network) -> dict[str, list[Layer]]:
    """The layers that read each tensor."""
    found: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            found.setdefault(name, []).append(layer)
    return found


def entry(network: Network) -> Layer:
    """The layer whose integers enter the accelerator.

    The first quantizer, or the reshape of its codes that a network begins with.
    """
    layer: Layer = network.input
    reading = readers(network)
    while len(after := reading.get(layer.output, [])) == 1 and isinstance(after[0], Reshape):
        layer = after[0]
    return layer


def obstacles(network: Network) -> Iterator[Obstacle]:
    """What keeps a network from becoming FINN's graph, in network order."""
    reading = readers(network)
    first = entry(network)
    if network.output.tensor in (network.input.output, first.output):
        yield Obstacle(network.input, "no layer follows the first quantizer", "Add a QuantLinear")
    if len(first.shape) not in (1, 3):
        yield Obstacle(
            first,
            f"FINN's streams hold (C, H, W) or (features,), not {first.shape}",
            "Flatten it, or give it a height and a width",
        )
    joins = False
    for layer in network.layers:
        joins = joins or len(layer.inputs) > 1
        found = _obstacle(network, layer)
        if found is not None:
            yield Obstacle(layer, *found)
    for layer in (network.input, *network.layers):
        if not joins and len(reading.get(layer.output, [])) > 1:
            yield Obstacle(layer, "two layers read it, and only one is used", "Remove the other")


def _obstacle(network: Network, layer: Layer) -> tuple[str, str] | None:
    before = network.layer(layer.inputs[0])
    most = max(-int(layer.low.min()), int(layer.high.max()))
    if layer.accumulates and most > _EXACT:
        return (
            f"its sums reach {most}, and FINN's models hold integers up to 2^24 only",
            "Use fewer bits or fewer inputs",
        )
    if isinstance(layer, Conv | MatMul) and not layer.weight.any():
        return (
            "all its weights are 0, and FINN has no sums of no bits",
            "Train the model again: this layer gives the same for every image",
        )
    match layer:
        case Conv():
            return _conv_obstacle(layer, before)
        case MatMul():
            return None
        case MaxPool():
            return _pool_obstacle(network, layer, before)
        case Threshold():
            return _threshold_obstacle(network, layer)
        case Reshape():
            return _reshape_obstacle(network, layer, before)
        case SumPool():
            return (
                "FINN has no average pooling between its layers",
                "Use MaxPool2d, a strided convolution, or a QuantLinear on the flattened map",
            )
        case Add() | Concat():
            return (
                "FINN's default build cannot join two branches",
                "Use a network without branches and skip connections",
            )
        case Pad():
            return (
                "FINN pads inside convolutions only, with zeros",
                "Set padding=... of the convolution behind it",
            )
        case _:
            return f"FINN's graph has no {layer.op}", "Use convolutions, linear layers, max pools"


def _conv_obstacle(layer: Conv, before: Layer) -> tuple[str, str] | None:
    inputs, outputs, groups = before.shape[0], layer.shape[0], layer.groups
    if groups > 1 and not groups == inputs == outputs:
        return (
            f"FINN maps dense convolutions and depthwise ones with as many outputs as inputs, "
            f"not {groups} groups from {inputs} to {outputs} channels",
            f"Use groups=1, or groups={inputs} with {inputs} output channels",
        )
    return _window_obstacle(axes(layer, before.shape))


def _window_obstacle(both: tuple[Axis, Axis]) -> tuple[str, str] | None:
    for axis, name in zip(both, ("rows", "columns"), strict=True):
        if axis.size == 1 and (axis.before or axis.after or axis.kernel > 1):
            return (
                f"FINN makes no windows of several {name} on a map of one",
                "Remove the padding along that axis, or use larger images",
            )
    return None


def _least(network: Network, layer: Layer) -> int:
    """The least code there is in the type of a layer's codes."""
    while isinstance(layer, MaxPool | Reshape):
        layer = network.layer(layer.inputs[0])
    return layer.base if isinstance(layer, Threshold) else network.input.quantizer.low


def _pool_obstacle(network: Network, layer: MaxPool, before: Layer) -> tuple[str, str] | None:
    if before.accumulates or (layer.signs < 0).any():
        return (
            "FINN pools integer codes, and its input is float",
            "Put the quantized activation in front of the pool: the maximum is the same",
        )
    if layer.dilations != (1, 1):
        return "FINN ignores the dilation of a pool", "Set dilation=1"
    both = axes(layer, before.shape)
    if any(axis.stride > axis.kernel for axis in both):
        return (
            f"FINN makes no pool windows of {both[0].kernel} x {both[1].kernel} with a larger "
            f"stride, {both[0].stride} x {both[1].stride}",
            "Use a stride no larger than the kernel",
        )
    # FINN goes by the type of the codes, whether or not negative ones occur.
    if _least(network, before) < 0 and any(axis.padded > axis.size for axis in both):
        return (
            "FINN pads a pool with zeros, which could win against signed codes",
            "Set padding=0, or put an unsigned quantizer (QuantReLU) in front of it",
        )
    return _window_obstacle(both)


def _threshold_obstacle(network: Network, layer: Threshold) -> tuple[str, str] | None:
    before = network.layer(layer.inputs[0])
    while isinstance(before, Reshape) and before is not entry(network):
        source = network.layer(before.inputs[0])
        if not _vectors(source, before):
            return (
                "it quantizes a map that was flattened, and FINN flattens channels last",
                "Put the quantizer (and batch norm) in front of the flattening",
            )
        before = source
    if (layer.signs < 0).any() and not isinstance(before, Conv | MatMul):
        return (
            "a negative factor lies between it and the quantizer before it, where no weights can "
            "take the sign",
            "Use positive factors (batch norm weights), or put a layer with weights between both "
            "quantizers",
        )
    return None


def _reshape_obstacle(network: Network, layer: Reshape, before: Layer) -> tuple[str, str] | None:
    if layer is entry(network) or _vectors(before, layer):
        return None
    if len(layer.shape) == 1 and layer.output != network.output.tensor:
        return None
    return (
        f"FINN's streams are channels last and cannot become {layer.shape} from {before.shape}",
        "Flatten before the last linear layer, and reshape nowhere else",
    )


def _vectors(before: Layer, after: Layer) -> bool:
    """Whether both are one value a channel, as (C,) or (C, 1, 1)."""
    return all(n == 1 for n in (*before.shape[1:], *after.shape[1:]))


@dataclass
class _Builder:
    """The growing graph. Tensors are named as in the network; vectors are (1, features)."""

    network: Network
    reading: dict[str, list[Layer]]
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
        weight = _rows(_rows(weight, high, 2), wide, 3)
        depthwise = depthwise_windows(layer, before.shape)
        if layer.groups > 1:
            dense = np.zeros((len(weight), layer.groups, *weight.shape[2:]), dtype=np.int64)
            dense[np.arange(len(weight)), np.arange(layer.groups)] = weight[:, 0]
            weight = dense
        if depthwise:
            sparsity = {"dw": {"kernel_shape": [high.kernel, wide.kernel]}}
            self.sparsity[f"{layer.name}_weight"] = sparsity
        if high.whole and wide.whole and not depthwise:
            x = self._flat(x, f"{layer.name}_window")
        elif not (high.trivial and wide.trivial):
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

    def _threshold(self, layer: Threshold, x: str) -> str:
        steps, base, datatype = _steps(layer)
        shape, _ = self.tensors[x]
        name = self.constant(f"{layer.name}_thresholds", steps, DataType["INT32"])
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
        if _vectors(before, layer):
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


def integer_graph(network: Network) -> ModelWrapper:
    """The graph of a network that has no ``obstacles``.

    Args:
        network: a lowered network.

    Returns:
        a model at batch 1: the codes of the image (NCHW, or flattened) go in, the integers of
        ``network.output.tensor`` come out, channels last or (1, features).
    """
    builder = _Builder(network, readers(network))
    first = entry(network)
    datatype = _code_type(network.input.quantizer.low, network.input.quantizer.high)
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


def _rows(weight: IntArray, axis: Axis, dimension: int) -> IntArray:
    """Weights with the rows along ``dimension`` that ``axis`` asks for."""
    rows = np.moveaxis(weight, dimension, 0)[axis.skipped :]
    kept = rows[: 1 + (axis.kernel - 1) // axis.spread]
    result = np.zeros((axis.kernel, *rows.shape[1:]), dtype=np.int64)
    result[:: axis.spread][: len(kept)] = kept
    return np.moveaxis(result, 0, dimension)


def _code_type(low: int, high: int) -> Any:
    """The type of codes; of two bits at least, which every hardware layer takes."""
    return DataType[f"{'U' if low >= 0 else ''}INT{max(2, bits_for(low, high))}"]


def _steps(layer: Threshold) -> tuple[IntArray, int, Any]:
    """Thresholds of codes one apart, the least code, and their type."""
    thresholds, base = layer.thresholds, layer.base
    count = thresholds.shape[1]
    if layer.step == 2:  # -1 and +1 are among the codes -2 to 1
        always = np.full((len(thresholds), 1), np.iinfo(np.int32).min)
        return np.concatenate([always, thresholds, thresholds], axis=1), -2, DataType["INT2"]
    if base == 0:  # 0 and 1 are among the codes 0 to 3
        never = [(0, 0), (0, max(0, 3 - count))]
        thresholds = np.pad(thresholds, never, constant_values=np.iinfo(np.int32).max)
    return thresholds, base, _code_type(base, base + count)


def _weight_type(layer: Conv | MatMul, weight: IntArray) -> Any:
    if layer.weight_bits == 1 and np.isin(weight, (-1, 1)).all():
        return DataType["BIPOLAR"]
    low, high = min(-1, int(weight.min())), int(weight.max())
    return DataType[f"INT{max(2, layer.weight_bits, bits_for(low, high))}"]
