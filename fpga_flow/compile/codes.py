"""The codes that flow between FINN's layers: their types, and the thresholds that make them.

Codes have two bits at least, which FINN's own matrix units ask for. For our modules there is an
exception: a code of two values that only layers with weights read travels as a bit b. If the
values are 0 and 1, b is the code. If they are -1 and +1, the code is 2 b - 1, and a sum behind it
is ``sum(w * (2 b - 1)) = 2 sum(w * b) - sum(w)``: the hardware sums ``w * b``, and the thresholds
behind take the rest. This asks for thresholds behind (not the network's output), and for no padding
(a padded pixel is 0, which no bit means). The image's codes, branches and what depthwise
convolutions read keep two bits, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from qonnx.core.datatype import DataType

from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.lowering import Layer, Network
from fpga_flow.lowering.ir import Conv, IntArray, MatMul, MaxPool, Reshape, Threshold, bits_for


def readers(network: Network) -> dict[str, list[Layer]]:
    """The layers that read each tensor."""
    found: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in layer.inputs:
            found.setdefault(name, []).append(layer)
    return found


@dataclass(frozen=True)
class OneBit(ShortRepr):
    """Which codes of a network travel as bits, and which sums are sums over such bits.

    Attributes:
        codes: tensors of the thresholds' codes that are bits.
        offsets: ``layer.signs * sums = 2 * (sums in hardware) + offset`` (int64, a channel) in
            front of a quantizer, by the tensor of its codes; no entry: the sums are the same.
    """

    codes: frozenset[str] = frozenset()
    offsets: Mapping[str, IntArray] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network) -> "OneBit":
        """Look through a lowered network."""
        reading = readers(network)
        one_bit = cls()
        for layer in network.layers:
            if not isinstance(layer, Threshold) or layer.thresholds.shape[1] != 1:
                continue
            found = _with_bits(network, reading, layer, one_bit)
            one_bit = one_bit if found is None else found
        return one_bit

    def adapted(self, layer: Threshold) -> Threshold:
        """``layer`` with thresholds of the sums in hardware."""
        offset = self.offsets.get(layer.output)
        if offset is None:
            return layer
        return replace(layer, thresholds=-((offset[:, None] - layer.thresholds) // 2))

    def codes_of(self, layer: Layer, values: IntArray) -> IntArray:
        """The codes (or sums) of ``layer`` that values in hardware mean."""
        bipolar = isinstance(layer, Threshold) and layer.step == 2
        return 2 * values - 1 if bipolar and layer.output in self.codes else values

    def sums_of(
        self, layer: Conv | MatMul, behind: Threshold, values: IntArray, counts: bool
    ) -> IntArray:
        """The sums of ``layer``, times signs, that values (..., C) in front of thresholds mean.

        Args:
            layer: whose sums they are.
            behind: the thresholds.
            values: as they flow in hardware.
            counts: whether they are numbers of equal bits (see ``rtl.hardware``).
        """
        signs = behind.signs
        weights = layer.weight.T if isinstance(layer, MatMul) else layer.weight
        if counts:
            values = values - (weights.reshape(len(signs), -1) * signs[:, None] < 0).sum(axis=1)
        offset = self.offsets.get(behind.output)
        return values if offset is None else 2 * values + offset


def _with_bits(
    network: Network, reading: Mapping[str, list[Layer]], layer: Threshold, known: OneBit
) -> OneBit | None:
    """``known`` and the codes of ``layer``; None: they stay codes of two bits."""
    if (layer.step == 1 and layer.base != 0) or hardly_any(known.adapted(layer).thresholds):
        return None
    found = OneBit(known.codes | {layer.output}, offsets := dict(known.offsets))
    waiting = [layer.output]
    while waiting:
        name = waiting.pop()
        if name == network.output.tensor:
            return None
        for reader in reading.get(name, []):
            if isinstance(reader, MaxPool | Reshape):
                waiting.append(reader.output)
            elif not isinstance(reader, Conv | MatMul) or (
                isinstance(reader, Conv) and reader.groups > 1
            ):
                return None
            elif layer.step == 2:
                after = _only_threshold(network, reading, reader)
                if after is None or (isinstance(reader, Conv) and any(reader.pads)):
                    return None
                inputs = (1, 2, 3) if isinstance(reader, Conv) else 0
                offsets[after.output] = -after.signs * reader.weight.sum(axis=inputs)
                if hardly_any(found.adapted(after).thresholds):
                    return None
    return found


def _only_threshold(
    network: Network, reading: Mapping[str, list[Layer]], layer: Layer
) -> Threshold | None:
    """The quantizer that is the only reader of a layer's sums."""
    while layer.output != network.output.tensor and len(after := reading[layer.output]) == 1:
        if isinstance(after[0], Threshold):
            return after[0]
        if not isinstance(after[0], Reshape):
            return None
        layer = after[0]
    return None


def hardly_any(thresholds: IntArray) -> bool:
    """Whether all thresholds are -1 or 0: FINN gives such a type of one bit, which has no 0."""
    return np.unique(thresholds).tolist() in ([-1], [-1, 0])


def code_type(low: int, high: int) -> Any:
    """The type of codes of two bits at least."""
    return DataType[f"{'U' if low >= 0 else ''}INT{max(2, bits_for(low, high))}"]


def threshold_steps(one_bit: OneBit, layer: Threshold) -> tuple[IntArray, int, Any]:
    """Thresholds of codes one apart, the least code, and their type."""
    layer = one_bit.adapted(layer)
    thresholds, base = layer.thresholds, layer.base
    count = thresholds.shape[1]
    if layer.output in one_bit.codes:
        return thresholds, 0, DataType["BINARY"]
    if layer.step == 2:  # -1 and +1 are among the codes -2 to 1
        always = np.full((len(thresholds), 1), np.iinfo(np.int32).min)
        return np.concatenate([always, thresholds, thresholds], axis=1), -2, DataType["INT2"]
    if base == 0:  # 0 and 1 are among the codes 0 to 3
        never = [(0, 0), (0, max(0, 3 - count))]
        thresholds = np.pad(thresholds, never, constant_values=np.iinfo(np.int32).max)
    return thresholds, base, code_type(base, base + count)
