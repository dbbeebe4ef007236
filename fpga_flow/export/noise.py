"""Which differences between a float engine and exact integers float32 rounding accounts for.

A float engine (torch, QONNX execution) computes the value behind an integer n as a sum of
products in float32. In any order of summation, a result of at most k roundings a term differs
from the exact one by at most gamma_k * (sum of the terms' magnitudes), with gamma_k = k*u / (1 -
k*u) and u = 2**-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, lemma 3.1 and
section 3.1). Both are known here: the lowering counts the roundings and adds up the constants'
magnitudes (``Affine``), and the magnitudes of the products are the same layer on absolute values.
Where a threshold lies closer to n than that, a float engine may put out the neighbouring code.
A convolution by a transform (Winograd, FFT) has no such bound; its differences are not accepted.

What follows from such a code is computed, not assumed: from the engine's own codes the int64
definition of the next layers is executed, and the engine must equal that exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering import Network
from fpga_flow.lowering.context import Site
from fpga_flow.lowering.ir import Conv, FloatArray, IntArray, Layer, MatMul, MaxPool, Pad, Threshold
from fpga_flow.lowering.lower import trace
from fpga_flow.lowering.reference import run
from fpga_flow.lowering.settle import undecided_channels

_UNIT = 2.0**-24  # float32 rounds to nearest with a relative error of at most this
Integers = Mapping[str, IntArray]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judgement(ShortRepr):
    """What became of one engine's integers."""

    places: dict[str, IntArray]  # by tensor, int64 (N,): codes of an image that float noise decided
    # By tensor, int64 (N,): the largest difference that noise does not account for, given what the
    # engine itself put out before; in order of execution
    faults: dict[str, IntArray]
    output: IntArray  # int64 (N, ...), what the logits stand for, given the same


class NoiseJudge:
    """Tells float noise from faults, for the engines of one cleaned model.

    Example:
        >>> from fpga_flow.lowering import clean
        >>> judge = NoiseJudge(clean("model.onnx"))
        >>> exact = judge.network.run(images)
        >>> judge.judge(exact, exact).places
        {}
    """

    def __init__(self, model: ModelWrapper) -> None:
        self.network, sites = trace(model)
        self._sites = {site.layer: site for site in sites}
        self._undecided = {site.layer: undecided_channels(site) for site in sites}
        self._producers = {layer.output: layer for layer in _layers(self.network)}

    def judge(self, exact: Integers, integers: Integers) -> Judgement:
        """Follow an engine from layer to layer.

        ``exact`` has the integers (N, ...) of every layer by tensor name, from ``network.run``, and
        ``integers`` the engine's, of any layers.
        """
        count = len(exact[self.network.input.output])
        places: dict[str, IntArray] = {}
        faults: dict[str, IntArray] = {}
        values: dict[str, IntArray] = {}
        for layer in _layers(self.network):
            expected = self._expected(layer, exact, values)
            values[layer.output] = integers.get(layer.output, expected)
            difference = np.abs(values[layer.output] - expected)
            noise = self._by_noise(layer, expected, values)
            if noise.any():
                places[layer.output] = noise.reshape(count, -1).sum(axis=1)
            difference[noise] = 0
            faults[layer.output] = difference.reshape(count, -1).max(axis=1)
        return Judgement(places, faults, values[self.network.output.tensor])

    def _expected(self, layer: Layer, exact: Integers, values: Integers) -> IntArray:
        """What the int64 definition makes of the engine's own integers."""
        expected = exact[layer.output].copy()
        inputs = [name for name in layer.inputs if name in values]  # the image is not among them
        count = len(expected)
        other = np.zeros(count, dtype=bool)
        for name in inputs:
            other |= (values[name] != exact[name]).reshape(count, -1).any(axis=1)
        if other.any():
            expected[other] = run(layer, [values[name][other] for name in inputs])
        return expected

    def _by_noise(self, layer: Layer, expected: IntArray, values: Integers) -> BoolArray:
        """Where the engine is one code apart, at an undecided threshold within the bound."""
        codes = values[layer.output]
        accepted = np.zeros(codes.shape, dtype=bool)
        places = np.nonzero(codes != expected)
        if not isinstance(layer, Threshold) or layer.name not in self._sites or not len(places[0]):
            return accepted
        site, channels = self._sites[layer.name], places[1]
        upper = np.maximum(codes, expected)[places]
        levels = (upper - layer.base) // layer.step - 1
        inside = (levels >= 0) & (levels < site.folded.real.shape[1])
        at = channels, levels.clip(0, site.folded.real.shape[1] - 1)
        distance = np.abs(layer.signs[channels] * values[site.ref][places] - site.folded.real[at])
        images = np.unique(places[0])
        size = self._size(site.ref, values, images)
        rows = np.searchsorted(images, places[0])
        accepted[places] = (
            (np.abs(codes - expected)[places] == layer.step)
            & inside
            & site.folded.live[at]
            & self._undecided[layer.name][channels]
            & (distance < bound(site, size[(rows, *places[1:])], channels))
        )
        return accepted

    def _size(self, tensor: str, values: Integers, images: npt.NDArray[np.intp]) -> IntArray:
        """Sums of magnitudes behind the integers of a tensor, of some images."""
        layer = self._producers[tensor]
        if isinstance(layer, Threshold) or layer is self.network.input:
            return np.abs(values[tensor][images])
        return run(_magnitude(layer), [self._size(name, values, images) for name in layer.inputs])


def bound(site: Site, size: npt.NDArray[np.integer], channels: npt.NDArray[np.intp]) -> FloatArray:
    """The largest error of a float engine before a quantizer, in integer steps, float64 (P,).

    ``size`` (P,) are sums of the magnitudes of the products behind P integers, of ``channels``
    (P,).
    """
    gamma = site.roundings * _UNIT / (1 - site.roundings * _UNIT)
    limits: FloatArray = gamma * (size + site.constants[channels])
    return limits


def _layers(network: Network) -> tuple[Layer, ...]:
    return (network.input, *network.layers)


def _magnitude(layer: Layer) -> Layer:
    """The layer that adds magnitudes where ``layer`` adds."""
    match layer:
        case Conv() | MatMul():
            return replace(layer, weight=np.abs(layer.weight))
        case MaxPool():
            return replace(layer, signs=np.ones_like(layer.signs))
        case Pad():
            return replace(layer, fill=abs(layer.fill))
        case _:
            return layer
