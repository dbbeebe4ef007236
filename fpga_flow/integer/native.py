"""A network as one call of compiled C++, for few images at once.

A library's kernel costs microseconds a call, however small the map, so that one image of a small
network waits for calls only. ``native.cpp`` executes all layers of an image in one call. A C++
compiler makes a library of it once a machine. Where there is none, and for layers beyond its
integers (int16 activations and weights, int32 sums), the other kernels compute few images too.
Each layer stands trial against int64 arithmetic at the ends of its inputs' ranges, and the gate
compares all of them in the network.
"""

import ctypes
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from divqat_brevitas.native import cache_folder, compiled
from fpga_flow.integer.native_layers import (
    Compiler,
    NotNativeError,
    Operation,
    Program,
    is_plain,
    map_shape,
)
from fpga_flow.integer.trial import extremes
from fpga_flow.lowering import Layer, Network, reference
from fpga_flow.lowering.inputs import FloatImages
from fpga_flow.lowering.ir import IntArray

NATIVE = "C++"
"""The kind of its kernels."""

_PRODUCTS, _MOST = 2**28, 256  # of images that are faster one after the other than at once
_SOURCE = Path(__file__).with_suffix(".cpp")


class NativeNetwork:
    """A network that native.cpp executes, one image after the other.

    Args:
        network: to execute.
        library: native.cpp, compiled.

    Attributes:
        few: the most images of a call; more are faster at once.

    Raises:
        NotNativeError: a layer of another kind, or whose integers do not fit.
    """

    def __init__(self, network: Network, library: ctypes.CDLL) -> None:
        self._network = network
        self._library = library
        self._lock = Lock()  # every call writes the same arrays
        compiler = Compiler(network, library.lanes())
        self._layers: tuple[Layer, ...] = (network.input, *network.layers)
        parts = [compiler.compile(layer) for layer in self._layers]
        operations = [one for part in parts for one in part]
        self._parts = [(Operation * len(part))(*part) for part in parts]
        self._all = (Operation * len(operations))(*operations)
        self._maps, self._arrays = compiler.maps, compiler.arrays
        self._plain = is_plain(network.input)
        products = sum(row.macs for row in network.describe())
        self.few = min(max(1, _PRODUCTS // max(1, products)), _MOST)
        entry = network.input_shape if self._plain else network.input.shape
        self._images = np.zeros((self.few, *entry), np.float32)
        self._sums = np.zeros((self.few, network.classes), np.int32)
        # Addresses of arrays take longer than a small layer.
        self._program = Program(
            ops=ctypes.addressof(self._all),
            count=len(operations),
            images=self._images.ctypes.data,
            size=self._images[0].size,
            last=self._maps[network.output.tensor].ctypes.data,
            sums=self._sums.ctypes.data,
            classes=network.classes,
        )
        self._address = ctypes.addressof(self._program)

    def logits(self, images: FloatImages) -> npt.NDArray[np.float32] | None:
        """Logits (N, classes) of few images; None of more, and of arrays that are no images."""
        network, few = self._network, 0 < len(images) <= self.few
        if not few or images.dtype != np.float32 or images.shape[1:] != network.input_shape:
            return None
        if not self._plain and not network.input_range.holds(images):
            return None
        with self._lock:
            right = self._run(images)
            sums = self._sums[: len(images)].astype(np.int64)
        return network.output.logits(sums) if right else None

    def integers(self, images: FloatImages, names: Collection[str]) -> dict[str, IntArray]:
        """Integers (N, ...) of tensors by name, of images in range."""
        layers = [layer for layer in self._layers if layer.output in names]
        values = {layer.output: np.empty((len(images), *layer.shape), np.int64) for layer in layers}
        for at in range(len(images)):
            with self._lock:
                self._run(images[at : at + 1])
                for layer in layers:
                    values[layer.output][at] = self._read(layer)
        return values

    def first_difference(self, images: FloatImages, expected: Mapping[str, IntArray]) -> str | None:
        """The first layer that differs from given integers; or None.

        Args:
            images: float32 (N, *input_shape).
            expected: ``network.run(images)``.
        """
        integers = self.integers(images, expected)
        for layer in self._layers:
            if not np.array_equal(integers[layer.output], expected[layer.output]):
                return layer.name
        return None

    def agrees(self) -> bool:
        """Whether each layer equals its int64 definition at the ends of its inputs' ranges."""
        for layer, part in zip(self._layers[1:], self._parts[1:], strict=True):
            inputs = [extremes(self._network.layer(name)) for name in layer.inputs]
            expected = reference.run(layer, inputs)
            for at, right in enumerate(expected):
                with self._lock:
                    for name, values in zip(layer.inputs, inputs, strict=True):
                        shape = map_shape(self._network.layer(name))
                        self._maps[name][:] = values[at].reshape(shape).transpose(1, 2, 0)
                    self._library.execute(part, len(part))
                    if not np.array_equal(self._read(layer), right):
                        return False
        return True

    def _run(self, images: FloatImages) -> bool:
        number = len(images)
        # What native.cpp does not know about the image is NumPy's.
        self._images[:number] = images if self._plain else self._network.input.codes(images)
        return bool(self._library.predict(self._address, number))

    def _read(self, layer: Layer) -> IntArray:
        values = self._maps[layer.output].transpose(2, 0, 1)
        return values.astype(np.int64).reshape(layer.shape)


def compile_native(network: Network, verdicts: dict[str, bool]) -> NativeNetwork | None:
    """The network for native.cpp; None without a C++ compiler, and where it would not be exact.

    Args:
        network: to execute.
        verdicts: of trials; its own is added.
    """
    found = library()
    if found is None:
        return None
    try:
        native = NativeNetwork(network, found)
    except NotNativeError:
        return None
    if NATIVE not in verdicts:
        verdicts[NATIVE] = native.agrees()
    return native if verdicts[NATIVE] else None


@cache
def library() -> ctypes.CDLL | None:
    """native.cpp for this processor, compiled by the first process that needs it; or None."""
    found = compiled(_SOURCE, cache_folder("integer"))
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    found.predict.argtypes, found.predict.restype = [pointer, number], number
    found.execute.argtypes, found.execute.restype = [pointer, number], None
    return found
