"""Layers as the operations of ``native.cpp``: arrays in its order, and the checks that they fit.

Maps are int32 (H, W, C). A convolution reads int16 from a padded copy of its input. Its products
are added in pairs: of neighbours along the kernel's row and the channels where those lie one
after the other in memory, else of neighbouring channels.
"""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from fpga_flow.integer.kernel import bound
from fpga_flow.integer.rescale import fit_rescale
from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.inputs import InputQuant
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
)

Array = npt.NDArray[Any]
Words = npt.NDArray[np.int32]
_INPUT, _CONV, _LINE, _COMPARE, _POOL_MAX, _POOL_SUM, _ADD, _GATHER = range(8)
_LONG, _POINTER, _FLOAT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
_HALF, _WORD = 2**15, 2**31


class NotNativeError(Exception):
    """native.cpp cannot compute a layer."""


class Operation(ctypes.Structure):
    """``Op`` of native.cpp, field by field."""

    _fields_ = (
        ("kind", _LONG),
        *((name, _POINTER) for name in ("a", "b", "out")),
        *((name, _LONG) for name in ("channels", "height", "width")),
        *((name, _LONG) for name in ("out_channels", "out_height", "out_width")),
        *((name, _LONG * 2) for name in ("kernel", "strides", "pads", "dilations")),
        *((name, _POINTER) for name in ("first", "second")),
        *((name, _LONG) for name in ("count", "stride")),
        ("padded", _POINTER),
        *((name, _LONG) for name in ("padded_width", "fills", "base", "step")),
        *((name, _FLOAT) for name in ("low", "high", "least", "most")),
    )


class Program(ctypes.Structure):
    """``Program`` of native.cpp, field by field."""

    _fields_ = (
        *(("ops", _POINTER), ("count", _LONG)),
        *(("images", _POINTER), ("size", _LONG)),
        *(("last", _POINTER), ("sums", _POINTER), ("classes", _LONG)),
    )


class Compiler:
    """The operations of a network's layers.

    Args:
        network: to compile.
        lanes: integers of a vector, from the library.

    Attributes:
        maps: int32 (H, W, C) by tensor name; operations write them.
        arrays: what else operations point to.
    """

    def __init__(self, network: Network, lanes: int) -> None:
        self._network = network
        self._lanes = lanes
        self.maps: dict[str, Words] = {}
        self.arrays: list[Array] = []

    def compile(self, layer: Layer) -> list[Operation]:
        """The operations of one layer; those before it are compiled.

        Raises:
            NotNativeError: it is of another kind, or its integers do not fit.
        """
        _check(int(layer.low.min()), int(layer.high.max()), _WORD)
        channels, height, width = map_shape(layer)
        self.maps[layer.output] = np.zeros((height, width, channels), np.int32)
        match layer:
            case InputQuant():
                return [self._input(layer)]
            case Conv():
                return self._convolution(layer, layer.weight, layer.dilations, layer.groups)
            case MatMul():
                return self._convolution(layer, layer.weight.T[:, :, None, None], (1, 1), 1)
            case Threshold():
                return [self._threshold(layer)]
            case MaxPool():
                signs = self._kept(layer.signs)
                return [self._pool(layer, _POOL_MAX, signs, layer.dilations)]
            case SumPool():
                return [self._pool(layer, _POOL_SUM, self._kept(layer.factors), (1, 1))]
            case Add():
                one, two = (self._kept(factors) for factors in 2**layer.shifts)
                return [self._operation(_ADD, layer, first=one, second=two)]
            case _:
                return self._copies(layer)

    def _input(self, entry: InputQuant) -> Operation:
        q, declared = entry.quantizer, self._network.input_range
        plain = is_plain(entry)
        shape = entry.shape if not plain else self._network.input_shape
        scale = np.broadcast_to(q.scale if plain else np.float32(1), (1, *shape))
        noise = declared.noise
        return self._operation(
            _INPUT,
            entry,
            source=entry,
            first=self._kept(scale, np.float32),
            low=q.low,
            high=q.high,
            least=declared.low - noise if plain else -np.inf,
            most=declared.high + noise if plain else np.inf,
        )

    def _convolution(
        self, layer: Conv | MatMul, weight: IntArray, dilations: tuple[int, int], groups: int
    ) -> list[Operation]:
        source = self._network.layer(layer.inputs[0])
        _check(int(source.low.min()), int(source.high.max()), _HALF)
        _check(int(weight.min()), int(weight.max()), _HALF - 1)
        _check(0, bound(layer, source), _WORD)
        strides, pads = (1, 1), (0, 0, 0, 0)
        if isinstance(layer, Conv):
            strides, pads = layer.strides, layer.pads
        channels, height, width = map_shape(source)
        top, left, bottom, right = pads
        row = (width + left + right) * channels
        # A pair's second half may lie behind the map; its weight is 0.
        padded = self._new(np.zeros((height + top + bottom) * row + 1, np.int16))
        out, per_group, places_y, _ = weight.shape
        out //= groups
        operations = []
        for group in range(groups):
            mine = weight[group * out : (group + 1) * out].transpose(0, 2, 3, 1)
            if groups == dilations[1] == 1:  # a kernel's row lies in one piece
                mine = mine.reshape(out, places_y, 1, -1)
            pieces = mine.shape[2]
            mine = np.pad(mine, ((0, -out % self._lanes), (0, 0), (0, 0), (0, mine.shape[3] % 2)))
            pairs = mine.shape[3] // 2
            steps = places_y * pieces * pairs
            packed = mine.reshape(-1, self._lanes, steps, 2).transpose(0, 2, 1, 3)
            offsets = (
                np.arange(places_y)[:, None, None] * dilations[0] * row
                + np.arange(pieces)[:, None] * dilations[1] * channels
                + np.arange(pairs) * 2
                + group * per_group
            )
            one = self._operation(
                _CONV,
                layer,
                first=self._kept(packed, np.int16),
                second=self._kept(offsets),
                count=steps,
                stride=out * groups,
                padded=padded,
                padded_width=width + left + right,
                fills=int(group == 0),
            )
            one.out_channels = out
            one.out += 4 * group * out
            one.strides[:], one.pads[:] = strides, (top, left)
            operations.append(one)
        return operations

    def _threshold(self, layer: Threshold) -> Operation:
        source = self._network.layer(layer.inputs[0])
        line = fit_rescale(layer, source)
        if line is not None:
            slope, offset = self._kept(line.slope, np.float32), self._kept(line.offset, np.float32)
            low, high = line.low, line.high
            return self._operation(_LINE, layer, first=slope, second=offset, low=low, high=high)
        _check(int(layer.thresholds.min()), int(layer.thresholds.max()), _WORD)
        return self._operation(
            _COMPARE,
            layer,
            first=self._kept(layer.thresholds.T),
            second=self._kept(layer.signs),
            count=layer.thresholds.shape[1],
            base=layer.base,
            step=layer.step,
        )

    def _pool(
        self, layer: MaxPool | SumPool, kind: int, first: int, dilations: tuple[int, int]
    ) -> Operation:
        one = self._operation(kind, layer, first=first)
        one.kernel[:], one.strides[:] = layer.kernel, layer.strides
        one.pads[:], one.dilations[:] = layer.pads[:2], dilations
        return one

    def _copies(self, layer: Layer) -> list[Operation]:
        """For each input, where its integers go."""
        out = self.maps[layer.output]
        to: IntArray = np.arange(out.size).reshape(out.shape)
        factors = np.ones(out.shape[2], np.int64)
        match layer:
            case Reshape():
                channels, height, width = map_shape(self._network.layer(layer.inputs[0]))
                flat = to.transpose(2, 0, 1).reshape(channels, height, width)
                places = [flat.transpose(1, 2, 0)]
            case Pad():
                top, left, bottom, right = layer.pads
                places = [to[top : to.shape[0] - bottom, left : to.shape[1] - right]]
            case Concat():
                sizes = [map_shape(self._network.layer(name))[0] for name in layer.inputs]
                places = np.split(to, np.cumsum(sizes)[:-1], axis=2)
                factors = 2**layer.shifts
            case _:
                raise NotNativeError
        return [
            self._operation(
                _GATHER,
                layer,
                source=self._network.layer(name),
                first=self._kept(places_of),
                second=self._kept(factors[places_of % out.shape[2]]),
                count=places_of.size,
                fills=int(isinstance(layer, Pad)),
                base=layer.fill if isinstance(layer, Pad) else 0,
            )
            for name, places_of in zip(layer.inputs, places, strict=True)
        ]

    def _operation(
        self, kind: int, layer: Layer, source: Layer | None = None, **fields: Any
    ) -> Operation:
        source = source or self._network.layer(layer.inputs[0])
        one = Operation(kind=kind, out=self.maps[layer.output].ctypes.data, **fields)
        one.channels, one.height, one.width = map_shape(source)
        one.out_channels, one.out_height, one.out_width = map_shape(layer)
        if kind != _INPUT:
            one.a = self.maps[source.output].ctypes.data
        if kind == _ADD:
            one.b = self.maps[layer.inputs[1]].ctypes.data
        return one

    def _kept(self, values: Array, dtype: npt.DTypeLike = np.int32) -> int:
        return self._new(np.ascontiguousarray(values, dtype))

    def _new(self, array: Array) -> int:
        self.arrays.append(array)
        return array.ctypes.data


def map_shape(layer: Layer) -> tuple[int, int, int]:
    """(C, H, W), of a vector (C, 1, 1)."""
    shape: tuple[int, ...] = (*layer.shape, 1, 1)
    return shape[0], shape[1], shape[2]


def is_plain(entry: InputQuant) -> bool:
    """Whether native.cpp makes codes of images; else NumPy does, in front of it."""
    q = entry.quantizer
    return not entry.preamble and not q.bipolar and q.rounding == "ROUND"


def _check(low: int, high: int, limit: int) -> None:
    if max(-low, high) >= limit:
        raise NotNativeError
