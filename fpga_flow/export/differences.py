"""Differences of torch, QONNX and the integer engine, by layer and image: faults or float noise."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.export.noise import NoiseJudge
from fpga_flow.lowering import Network
from fpga_flow.lowering.ir import IntArray

Engines = tuple[str, str]
Integers = Mapping[str, IntArray]  # by tensor name, and OUTPUT
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
OUTPUT = "output"
_PAIRS: tuple[Engines, ...] = (("torch", "qonnx"), ("qonnx", "integer"))
_FLOAT_ENGINES = {"torch": _PAIRS[0], "qonnx": _PAIRS[1]}  # where their faults are named
_DEFINITION = ("integer", "int64 definition")


@dataclass(frozen=True)
class FloatNoise(ShortRepr):
    """Images of which a float engine's rounding decided codes otherwise than exact arithmetic.

    Every such code is one step from the exact one, at a sum whose distance from the threshold
    float32 cannot tell; what follows from it was computed again and equals. FINN and RTL compare
    integers, as the integer engine does.
    """

    engine: str  # "torch" or "qonnx"
    images: int  # with at least one such code
    places: dict[str, int]  # by layer of the exported file, how many such codes
    logits: int  # images whose last accumulators differ for it
    labels: int  # images whose label differs for it

    def __str__(self) -> str:
        """One line."""
        layers = ", ".join(f"{count} in {layer!r}" for layer, count in self.places.items())
        return (
            f"{self.engine}: float noise decided codes of {self.images} images ({layers}); logits "
            f"of {self.logits} and labels of {self.labels} images differ from the integer engine's"
        )


@dataclass(frozen=True)
class Fault(ShortRepr):
    """The first difference that is no float noise; attributes as of ``ParityResult``."""

    layer: str
    image: int
    largest: int
    engines: Engines
    shapes: Shapes | None


class Differences:
    """Collects differences, batch by batch.

    Args:
        model: the cleaned model that the engines execute.
        network: the same in integers; None where it cannot be lowered and labels are compared.
        count: images in all.
    """

    def __init__(self, model: ModelWrapper, network: Network | None, count: int) -> None:
        self._model, self._network, self._count = model, network, count

        def table() -> defaultdict[tuple[str, Engines], IntArray]:
            return defaultdict(lambda: np.zeros(count, dtype=np.int64))

        # By layer and engines, of each image: the largest difference; that of it which is a fault.
        self._apart, self._faults = table(), table()
        # By layer and engine, of each image: codes that noise decided; by engine: logits, labels.
        self._places, self._outputs = table(), table()
        self._shapes: dict[tuple[str, Engines], Shapes] = {}
        self.layers: tuple[str, ...] = ()

    def add(
        self, start: int, images: FloatArray, torch: Integers, qonnx: Integers, integer: Integers
    ) -> None:
        """Compare the integers of a batch of float32 images (N, ...), the first of index ``start``.

        ``torch`` may hold any layers, ``qonnx`` is in order of execution, ``integer`` may be empty.
        """
        self.layers = tuple(map(self._name, qonnx))
        at = np.arange(start, start + len(images))
        engines = {"torch": torch, "qonnx": qonnx, "integer": integer}
        differing = np.zeros(len(images), dtype=bool)
        for tensor, (a, b) in product(qonnx, _PAIRS):
            if tensor in engines[a] and tensor in engines[b]:
                key = self._name(tensor), (a, b)
                distance = self._distance(key, engines[a][tensor], engines[b][tensor])
                self._apart[key][at] = distance
                differing |= distance > 0
        if self._network is None or self._shapes:
            for key, distances in self._apart.items():
                self._faults[key][at] = distances[at]
        elif differing.any():
            rows = {
                name: {tensor: values[differing] for tensor, values in integers.items()}
                for name, integers in engines.items()
            }
            self._judge(at[differing], images[differing], rows, self._network)

    def _judge(
        self,
        at: npt.NDArray[np.intp],
        images: FloatArray,
        engines: dict[str, dict[str, IntArray]],
        network: Network,
    ) -> None:
        """Tell faults from noise, for images with differences."""
        exact = self._noise_judge.network.run(images)  # as the file defines it
        last = exact[network.output.tensor].reshape(len(images), -1)
        for tensor, values in engines["integer"].items():
            key = self._name(tensor), _DEFINITION
            right = last if tensor == OUTPUT else exact[tensor]
            self._faults[key][at] = self._distance(key, values, right)
        for engine, pair in _FLOAT_ENGINES.items():
            integers = engines[engine]
            found = self._noise_judge.judge(exact, integers)
            for tensor, faults in found.faults.items():
                self._faults[self._name(tensor), pair][at] = faults
            for tensor, places in found.places.items():
                self._places[self._name(tensor), pair][at] = places
            key, output = (OUTPUT, pair), found.output.reshape(len(images), -1)
            self._faults[key][at] = self._distance(key, integers[OUTPUT], output)
            self._outputs["logits", pair][at] = (integers[OUTPUT] != last).any(axis=1)
            labels = (network.output.logits(one).argmax(axis=1) for one in (integers[OUTPUT], last))
            self._outputs["labels", pair][at] = np.not_equal(*labels)

    @cached_property
    def _noise_judge(self) -> NoiseJudge:
        return NoiseJudge(self._model)

    @property
    def differing(self) -> BoolArray:
        """Whether each image, bool (N,), has any differing integer."""
        return self._any(self._apart)

    @property
    def faulty(self) -> BoolArray:
        """Whether each image, bool (N,), has a difference that float noise does not account for."""
        return self._any(self._faults)

    @property
    def pairs(self) -> dict[Engines, tuple[int, int]]:
        """By two engines, images that differ, and how many of these by noise."""
        noise = ~self.faulty
        counts = {}
        for pair in dict.fromkeys(pair for _, pair in self._apart):
            apart = self._any({key: n for key, n in self._apart.items() if key[1] == pair})
            counts[pair] = int(apart.sum()), int((apart & noise).sum())
        return counts

    @property
    def noise(self) -> tuple[FloatNoise, ...]:
        """What float noise decided, engine by engine."""
        found = []
        for engine, pair in _FLOAT_ENGINES.items():
            places = {layer: self._places[layer, pair] for layer in self.layers}
            decided = np.any([counts > 0 for counts in places.values()], axis=0)
            if decided.any():
                counts = {name: int(n.sum()) for name, n in places.items() if n.any()}
                outputs = (self._outputs[kind, pair][decided] for kind in ("logits", "labels"))
                moved = (int(output.sum()) for output in outputs)
                found.append(FloatNoise(engine, int(decided.sum()), counts, *moved))
        return tuple(found)

    @property
    def first_fault(self) -> Fault | None:
        """In the first layer that has one."""
        for layer, pair in product(self.layers, (_DEFINITION, *reversed(_PAIRS))):
            distances = self._faults[layer, pair]
            if distances.any():
                image, largest = int(np.flatnonzero(distances)[0]), int(distances.max())
                return Fault(layer, image, largest, pair, self._shapes.get((layer, pair)))
        return None

    def _name(self, tensor: str) -> str:
        if tensor == OUTPUT or self._network is None:
            return tensor
        return self._network.layer(tensor).source

    def _distance(self, key: tuple[str, Engines], ours: IntArray, theirs: IntArray) -> IntArray:
        """int64 (N,): the largest difference in each image."""
        if ours.shape != theirs.shape:  # values would be broadcast
            self._shapes[key] = ours.shape, theirs.shape
            return np.ones(len(ours), dtype=np.int64)
        distance: IntArray = np.abs(ours - theirs).reshape(len(ours), -1).max(axis=1)
        return distance

    def _any(self, table: Mapping[tuple[str, Engines], IntArray]) -> BoolArray:
        found = np.zeros(self._count, dtype=bool)
        for values in table.values():
            found |= values > 0
        return found
