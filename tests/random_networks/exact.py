"""QONNX evaluated without rounding: Python integers over one denominator a tensor.

An evaluator of its own, node by node over the file as it is: nothing of ``fpga_flow.lowering``, no
affine function, no threshold. Up to the first quantizer of the image it computes in float32, as the
operators do; behind it every float32 parameter is the fraction it is, and quantizers decide by
whole numbers. A batch norm's square root is taken to 200 bits.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from qonnx.custom_op.general.quant import resolve_rounding_mode

Array = NDArray[Any]
_ROOT_BITS = 200


@dataclass(frozen=True)
class Exact:
    """``numerator / denominator``: an object array of Python integers, and one integer."""

    numerator: Array
    denominator: int = 1

    @classmethod
    def of(cls, values: Any) -> "Exact":
        """Floats as the fractions that they are."""
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
        mantissa, exponent = np.frexp(array)
        whole, power = (mantissa * 2.0**53).astype(np.int64), exponent.astype(np.int64) - 53
        lowest = min(0, int(power[array != 0].min(initial=0)))
        shift = np.where(array == 0, 0, power - lowest)
        shifted = [int(w) << int(s) for w, s in zip(whole.flat, shift.flat, strict=True)]
        numerator = np.array([*shifted, None], dtype=object)[:-1].reshape(array.shape)
        common = math.gcd(*shifted, 2**-lowest)
        return cls(numerator // common, 2**-lowest // common)

    @property
    def floats(self) -> NDArray[np.float64]:
        """The nearest float64 of each."""
        flat = [n / self.denominator for n in self.numerator.flat]
        return np.array(flat, dtype=np.float64).reshape(self.numerator.shape)

    def changed(self, function: Callable[[Array], Array]) -> "Exact":
        """With the numerators rearranged."""
        return Exact(function(self.numerator), self.denominator)

    def over(self, denominator: int) -> Array:
        """Numerators over a multiple of the denominator."""
        return self.numerator * (denominator // self.denominator)

    def __mul__(self, other: "Exact") -> "Exact":
        return Exact(self.numerator * other.numerator, self.denominator * other.denominator)

    def __add__(self, other: "Exact") -> "Exact":
        common = math.lcm(self.denominator, other.denominator)
        return Exact(self.over(common) + other.over(common), common)

    def __neg__(self) -> "Exact":
        return Exact(-self.numerator, self.denominator)

    def inverse(self) -> "Exact":
        """One over each; nothing may be zero."""
        common = math.lcm(*(int(n) for n in self.numerator.flat))
        return Exact(common // self.numerator * self.denominator, common)


@dataclass
class Evaluation:
    """What came of a batch.

    Attributes:
        values: by tensor name of the file: Exact, or float32 before the image's quantizer.
        codes: by node name of a quantizer, int64 codes.
        ties: how many values lay exactly half way between two codes, or on a sign's zero.
        near: by node name of a quantizer, whether a value lies beside a level, but within 1e-7.
    """

    values: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    ties: int = 0
    near: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def evaluate(model: onnx.ModelProto, images: NDArray[np.float32]) -> Evaluation:
    """Every tensor of a file for a batch of images.

    Raises:
        NotImplementedError: an operator that random networks do not use.
    """
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    (image,) = (i.name for i in graph.input if i.name not in constants)
    found = Evaluation({image: images})
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [found.values.get(n, constants.get(n)) for n in node.input]
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
        elif node.op_type in ("Quant", "BipolarQuant"):
            is_constant = node.input[0] in constants
            found.values[node.output[0]] = _quantize(node, attributes, inputs, is_constant, found)
        elif any(isinstance(found.values.get(n), np.ndarray) for n in node.input):
            found.values[node.output[0]] = _FLOAT[node.op_type](*inputs)
        elif node.op_type in _RULES:
            found.values[node.output[0]] = _RULES[node.op_type](attributes, *inputs)
        else:
            raise NotImplementedError(node.op_type)
    return found


@dataclass(frozen=True)
class Parameter:
    """A quantized constant: exact as weights, float32 where it is a bias."""

    exact: Exact
    rounded: NDArray[np.float32]


def _operand(value: Any) -> Exact:
    if isinstance(value, Parameter):
        return Exact.of(value.rounded)
    return value if isinstance(value, Exact) else Exact.of(value)


def _quantize(
    node: NodeProto, attributes: Any, inputs: Sequence[Any], constant: bool, found: Evaluation
) -> Any:
    value, scale = inputs[0], np.asarray(inputs[1], dtype=np.float32)
    bipolar = node.op_type == "BipolarQuant"
    bits = 1 if bipolar else int(np.asarray(inputs[3]).item())
    signed, narrow = attributes.get("signed", 1), attributes.get("narrow", 1)
    mode = attributes.get("rounding_mode", b"ROUND").decode().upper()
    bipolar = bipolar or (bits == 1 and bool(signed))
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    if not isinstance(value, Exact):  # a constant, or the image: float32, as the operator computes
        if bipolar:
            codes = np.where(value >= 0, 1, -1)
        else:
            clipped = np.clip(np.asarray(value, np.float32) / scale, low, high)
            codes = resolve_rounding_mode(mode)(clipped).astype(np.int64)
    else:
        codes = _decide(value, scale, mode, node.name, None if bipolar else (low, high), found)
    numbers = np.array([*map(int, codes.flat), None], dtype=object)[:-1].reshape(codes.shape)
    result = Exact(numbers) * Exact.of(scale)
    if constant:
        return Parameter(result, (codes * scale).astype(np.float32))
    found.codes[node.name] = codes.astype(np.int64)
    return result


def _decide(
    value: Exact,
    scale: NDArray[np.float32],
    mode: str,
    name: str,
    limits: tuple[int, int] | None,
    found: Evaluation,
) -> Array:
    """Codes of exact values."""
    if limits is None:
        found.ties += int((value.numerator == 0).sum())
        ratio = value * Exact.of(scale).inverse()
        found.near[name] = (value.numerator != 0) & (np.abs(ratio.floats) < 1e-7)
        return np.where(value.numerator >= 0, 1, -1)
    ratio = value * Exact.of(scale).inverse()
    n, d = ratio.numerator, ratio.denominator
    down, rest = n // d, n % d
    size = np.maximum(1.0, np.abs(ratio.floats))
    if mode in ("ROUND", "HALF_EVEN"):
        tie = 2 * rest == d
        up = (2 * rest > d) | (tie & (down % 2 == 1))
        gap = np.abs(Exact(2 * rest - d, 2 * d).floats)
    else:
        tie = rest == 0
        up = ~tie if mode == "CEIL" else np.zeros(tie.shape, dtype=bool)
        if mode not in ("CEIL", "FLOOR"):
            raise NotImplementedError(mode)
        gap = np.minimum(Exact(rest, d).floats, Exact(d - rest, d).floats)
    inside = (down >= limits[0] - 1) & (down <= limits[1])
    found.ties += int((tie & inside).sum())
    found.near[name] = np.asarray(~tie.astype(bool) & (gap < 1e-7 * size))
    return np.clip(down + up.astype(object), *limits)


def _windows(x: Array, kernel: Any, a: dict[str, Any], fill: int) -> Array:
    """(N, C, H, W, kh, kw)."""
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    (sh, sw), (dh, dw) = a.get("strides", (1, 1)), a.get("dilations", (1, 1))
    mode = a.get("auto_pad", b"NOTSET").decode()
    spans = (dh * (kernel[0] - 1) + 1, dw * (kernel[1] - 1) + 1)
    if mode.startswith("SAME"):
        pads = []
        for size, stride, span in zip(x.shape[2:], (sh, sw), spans, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + span - size)
            ends = (total // 2, total - total // 2)
            pads.append(ends if mode == "SAME_UPPER" else ends[::-1])
        (top, bottom), (left, right) = pads
    height, width = x.shape[2:]
    if a.get("ceil_mode", 0):  # a last window may reach over the edge, but not start behind it
        more = [0, 0]
        for axis, (size, first, last) in enumerate(((height, top, bottom), (width, left, right))):
            stride, span = (sh, sw)[axis], spans[axis]
            count = -(-(size + first + last - span) // stride) + 1
            count -= (count - 1) * stride >= size + first
            more[axis] = max(0, (count - 1) * stride + span - size - first - last)
        bottom, right = bottom + more[0], right + more[1]
    # np.pad would fill in NumPy's integers, which overflow.
    padded = np.full((*x.shape[:2], top + height + bottom, left + width + right), fill, object)
    padded[:, :, top : top + height, left : left + width] = x
    view = sliding_window_view(padded, spans, axis=(2, 3))
    return view[:, :, ::sh, ::sw, ::dh, ::dw]


def _conv(a: dict[str, Any], x: Exact, w: Parameter, bias: Any = None) -> Exact:
    weight, groups = w.exact.numerator, a.get("group", 1)
    view = _windows(x.numerator, weight.shape[2:], a, 0)
    parts = [
        np.tensordot(v, k, ((1, 4, 5), (1, 2, 3)))
        for v, k in zip(np.split(view, groups, 1), np.split(weight, groups, 0), strict=True)
    ]
    sums = np.concatenate(parts, axis=3).transpose(0, 3, 1, 2)
    result = Exact(sums, x.denominator * w.exact.denominator)
    if bias is None:
        return result
    return result + _operand(bias).changed(lambda n: n.reshape(-1, 1, 1))


def _gemm(a: dict[str, Any], x: Exact, w: Parameter, bias: Any = None) -> Exact:
    weight = w.exact.changed(lambda n: n.T if a.get("transB", 0) else n)
    product = Exact(x.numerator @ weight.numerator, x.denominator * weight.denominator)
    product = product * Exact.of(a.get("alpha", 1.0))
    return product if bias is None else product + _operand(bias) * Exact.of(a.get("beta", 1.0))


def _batch_norm(a: dict[str, Any], x: Exact, *parameters: Any) -> Exact:
    gamma, beta, mean, variance = map(_operand, parameters)
    radicand = variance + Exact.of(a.get("epsilon", 1e-5))
    roots = [_root(Fraction(int(n), radicand.denominator)) for n in radicand.numerator]
    common = math.lcm(*(r.denominator for r in roots))
    root = Exact(np.array([int(r * common) for r in roots] + [None], dtype=object)[:-1], common)
    factor = gamma * root.inverse()
    column = [-1] + [1] * (x.numerator.ndim - 2)
    scaled = x * factor.changed(lambda n: n.reshape(column))
    return scaled + (beta + -(mean * factor)).changed(lambda n: n.reshape(column))


def _root(value: Fraction) -> Fraction:
    """The square root, to ``_ROOT_BITS`` bits."""
    scaled = (value.numerator << 2 * _ROOT_BITS) // value.denominator
    return Fraction(math.isqrt(scaled), 1 << _ROOT_BITS)


def _clip(a: dict[str, Any], x: Exact, low: Any = None, high: Any = None) -> Exact:
    for bound, choose in ((low, np.maximum), (high, np.minimum)):
        if bound is not None and np.isfinite(bound):
            limit = _operand(bound)
            common = math.lcm(x.denominator, limit.denominator)
            x = Exact(choose(x.over(common), limit.over(common)), common)
    return x


def _max_pool(a: dict[str, Any], x: Exact) -> Exact:
    lowest = min(x.numerator.flat) - 1
    view = _windows(x.numerator, a["kernel_shape"], a, lowest)
    return Exact(view.max(axis=(4, 5)), x.denominator)


def _average(a: dict[str, Any], x: Exact) -> Exact:
    kernel = a["kernel_shape"]
    sums = _windows(x.numerator, kernel, a, 0).sum(axis=(4, 5))
    if a.get("count_include_pad", 0):
        return Exact(sums, x.denominator * math.prod(kernel))
    counts = _windows(np.full_like(x.numerator, 1), kernel, a, 0).sum(axis=(4, 5))
    return Exact(sums, x.denominator) * Exact(counts).inverse()


def _global_average(a: dict[str, Any], x: Exact, axes: Any = None) -> Exact:
    keep = bool(a.get("keepdims", 1))
    count = math.prod(x.numerator.shape[2:])
    return Exact(x.numerator.sum(axis=(2, 3), keepdims=keep), x.denominator * count)


def _total(a: dict[str, Any], x: Exact, axes: Any) -> Exact:
    return x.changed(lambda n: n.sum(axis=(2, 3), keepdims=bool(a.get("keepdims", 1))))


def _maximum(a: dict[str, Any], x: Exact, axes: Any) -> Exact:
    return x.changed(lambda n: n.max(axis=(2, 3), keepdims=bool(a.get("keepdims", 1))))


def _truncate(a: dict[str, Any], x: Exact, *numbers: Any) -> Exact:
    """Version 2: integers shifted, rounded and clipped, at the output's scale."""
    scale, _, _, output_scale, bits = (np.float32(np.asarray(n).item()) for n in numbers)
    integers = np.rint((x * Exact.of(scale).inverse()).floats).astype(np.int64)
    divisor = 2 ** int(np.rint(np.log2(output_scale / scale)))
    down, rest = integers // divisor, integers % divisor
    mode, signed = a["rounding_mode"].decode().upper(), a["signed"]
    if mode == "CEIL":
        down = down + (rest > 0)
    elif mode in ("ROUND", "HALF_EVEN"):
        down = down + ((2 * rest > divisor) | ((2 * rest == divisor) & (down % 2 == 1)))
    low = -(2 ** (int(bits) - 1)) + a["narrow"] if signed else 0
    high = 2 ** (int(bits) - signed) - 1 - (a["narrow"] if not signed else 0)
    codes = np.clip(down, low, high)
    exact = np.array([*map(int, codes.flat), None], dtype=object)[:-1].reshape(codes.shape)
    return Exact(exact) * Exact.of(output_scale)


def _pad(a: dict[str, Any], x: Exact, pads: Any, value: Any = None) -> Exact:
    ends = np.asarray(pads).reshape(2, -1)
    inner = [slice(int(e), int(e) + n) for e, n in zip(ends[0], x.numerator.shape, strict=True)]
    size = [int(n + e) for n, e in zip(x.numerator.shape, ends.sum(axis=0), strict=True)]
    padded = np.full(size, 0, object)
    padded[tuple(inner)] = x.numerator
    return Exact(padded, x.denominator)


def _flatten(a: dict[str, Any], x: Exact) -> Exact:
    return x.changed(lambda n: n.reshape(len(n), -1))


def _reshape(a: dict[str, Any], x: Any, shape: Any) -> Any:
    return x.changed(lambda n: n.reshape(len(n), *map(int, shape[1:])))


def _squeeze(a: dict[str, Any], x: Exact, axes: Any) -> Exact:
    return x.changed(lambda n: n.reshape([s for i, s in enumerate(n.shape) if i not in axes]))


def _unsqueeze(a: dict[str, Any], x: Exact, axes: Any) -> Exact:
    return x.changed(lambda n: np.expand_dims(n, tuple(int(i) for i in axes)))


def _transpose(a: dict[str, Any], x: Any) -> Any:
    if isinstance(x, Parameter):
        rounded = x.rounded.transpose(a["perm"])
        return Parameter(x.exact.changed(lambda n: n.transpose(a["perm"])), rounded)
    return x.changed(lambda n: n.transpose(a["perm"]))


_FLOAT: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Flatten": lambda x: x.reshape(len(x), -1),
    "Reshape": lambda x, shape: x.reshape(len(x), *map(int, shape[1:])),
    "Identity": lambda x: x,
}
_RULES: dict[str, Callable[..., Any]] = {
    "Add": lambda _, x, y: _operand(x) + _operand(y),
    "Sub": lambda _, x, y: _operand(x) + -_operand(y),
    "Mul": lambda _, x, y: _operand(x) * _operand(y),
    "Div": lambda _, x, y: _operand(x) * _operand(y).inverse(),
    "Relu": lambda _, x: Exact(np.maximum(x.numerator, 0), x.denominator),
    "Identity": lambda _, x: x,
    "Dropout": lambda _, x, *others: x,
    "Concat": lambda a, *xs: _concat(a["axis"], xs),
    "Conv": _conv,
    "MatMul": _gemm,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "MaxPool": _max_pool,
    "AveragePool": _average,
    "GlobalAveragePool": _global_average,
    "ReduceMean": _global_average,
    "ReduceSum": _total,
    "ReduceMax": _maximum,
    "Trunc": _truncate,
    "Pad": _pad,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
}


def _concat(axis: int, parts: Sequence[Exact]) -> Exact:
    common = math.lcm(*(part.denominator for part in parts))
    return Exact(np.concatenate([part.over(common) for part in parts], axis), common)
