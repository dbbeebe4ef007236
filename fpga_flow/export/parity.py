"""The parity gate: torch in evaluation mode, ``qonnx.execute_onnx`` and the integer engine.

Everything is compared as integers, with exact equality: the codes of every activation
quantizer and the accumulators of every weighted layer, recovered by dividing by the scale.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.files import sha256_file
from divqat_brevitas.input_range import UNIT, InputRange
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.export.observe import logits_of, observe
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import Difference, gate
from fpga_flow.lowering import Network
from fpga_flow.lowering.ir import IntArray

FloatArray = npt.NDArray[np.float32]
Engines = tuple[str, str]
OUTPUT = "output"
_BATCH = 64
_UNDECIDED = (
    "A threshold of that quantizer lies so close to an integer that float engines decide by noise. "
    "Neither a bias before it nor its scale could move all of its thresholds away: 8-bit codes "
    "have too many, or no bias is there, or the scale is a constant, a power of two or shared. Use "
    "fewer bits, put a batch norm or a bias before it (merge_bn=False, bias_quant=None), or take a "
    "quantizer whose scale is learned."
)
_OTHERWISE = (
    "A weight quantizer that does not round to nearest exports wrong integers from Brevitas: use "
    "the DivQAT quantizers (swap_quantizers) for that layer. Anything else please report."
)


@dataclass(frozen=True)
class ParityResult(ShortRepr):
    """Outcome of a comparison.

    Attributes:
        inputs: images compared.
        mismatches: images with any differing integer (or label, see ``unit``).
        unit: "accumulators", or "labels" for a model that cannot be lowered to integers.
        layers: names of the layers compared, as in the exported file; the last is "output".
        first_layer: the first of them that differs, or None.
        first_image: index of the first differing image, or None.
        largest: largest difference of an integer there.
        engines: the two that differ, or None.
        shapes: shapes of theirs in that layer, where these differ already.
        replaced: kernels of the integer engine that are wrong on this machine, and were replaced
            before the comparison; empty as a rule.
    """

    inputs: int
    mismatches: int
    unit: str
    layers: tuple[str, ...] = field(repr=False)
    first_layer: str | None = None
    first_image: int | None = None
    largest: int = 0
    engines: Engines | None = None
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    replaced: tuple[Difference, ...] = ()


class ParityError(CheckFailedError):
    """Torch, the exported file and the integer engine do not compute the same (exit code 1).

    Args:
        result: the comparison.
        path: of the file that was to be written.
        exporter: which torch exporter.
        undecided: layers in the exported file whose thresholds lie on integers.

    Attributes:
        result: the comparison.
    """

    def __init__(
        self, result: ParityResult, path: Path, exporter: str, undecided: Collection[str] = ()
    ):
        self.result = result
        reason = _UNDECIDED if result.first_layer in undecided else _OTHERWISE
        super().__init__(
            f"export parity failed for {path} ({exporter} exporter): "
            f"{' and '.join(result.engines or ())} differ on {result.mismatches} of "
            f"{result.inputs} images, first in layer {result.first_layer!r} ({_how(result)}). The "
            f"file was not written. {reason}"
        )


def _how(result: ParityResult) -> str:
    if result.shapes is not None:
        return "shapes {} and {}".format(*result.shapes)
    return f"image {result.first_image}, by up to {result.largest} {result.unit}"


def probes(images: FloatArray, network: Network | None, declared: InputRange = UNIT) -> FloatArray:
    """Images for the gate: the examples, extremes, noise, and images on rounding ties.

    Args:
        images: float32 (N, ...) examples.
        network: gives the input quantizer, whose half steps are the ties.
        declared: the input range.

    Returns:
        float32 (M, ...) in ``declared``, the examples first.
    """
    shape = images.shape[1:]
    rng = np.random.default_rng(0)
    unit = [np.zeros((1, *shape)), np.ones((1, *shape)), rng.random((4, *shape))]
    extra = [declared.spread(u) for u in unit]
    if network is not None:
        ties = network.input.ties(8, shape)
        extra.append(ties.clip(np.float32(declared.low), np.float32(declared.high)))
    return np.concatenate([images, *extra])


def compare(
    model: nn.Module, onnx_path: Path, images: FloatArray, network: Network | None
) -> ParityResult:
    """Compare a torch model, the QONNX file exported from it, and the integer engine on that file.

    Shapes are compared before values.

    Args:
        model: the Brevitas model; executed in evaluation mode.
        onnx_path: the exported file.
        images: float32 (N, ...) in the input range.
        network: the file lowered to integers; None compares labels only.
    """
    engine = QonnxEngine(onnx_path, batch=min(_BATCH, len(images)))
    integer = None if network is None else IntegerEngine(network)
    replaced = () if integer is None else gate(integer, sha256_file(onnx_path))
    distances: dict[tuple[str, Engines], list[IntArray]] = {}
    shapes: dict[tuple[str, Engines], tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        if integer is None:
            labels = _labels(logits_of(model, part)), _labels(engine.predict(part))
            pairs = [(OUTPUT, ("torch", "qonnx"), *labels)]
        else:
            pairs = _integers(model, engine, integer, part)
        for name, engines, ours, theirs in pairs:
            key = name, engines
            if ours.shape != theirs.shape:  # values would be broadcast
                shapes[key] = ours.shape, theirs.shape
                distance = np.ones(len(part), dtype=np.int64)
            else:
                distance = np.abs(ours - theirs).reshape(len(part), -1).max(axis=1)
            distances.setdefault(key, []).append(distance)
    apart = {key: np.concatenate(parts) for key, parts in distances.items()}
    first = next((key for key, distance in apart.items() if distance.any()), None)
    return ParityResult(
        inputs=len(images),
        mismatches=int(np.any(list(apart.values()), axis=0).sum()),
        unit="labels" if network is None else "accumulators",
        layers=tuple(dict.fromkeys(name for name, _ in apart)),
        first_layer=None if first is None else first[0],
        first_image=None if first is None else int(np.flatnonzero(apart[first])[0]),
        largest=0 if first is None else int(apart[first].max()),
        engines=None if first is None else first[1],
        shapes=None if first is None else shapes.get(first),
        replaced=replaced,
    )


def _integers(
    model: nn.Module, engine: QonnxEngine, integer: IntegerEngine, images: FloatArray
) -> list[tuple[str, Engines, IntArray, IntArray]]:
    """By layer, in order of execution, two engines and their integers: torch, QONNX, integer."""
    network = integer.network
    logits, observed = observe(model, network, images)
    # One execution gives the logits too.
    tensors = engine.tensors(images, [*(layer.output for layer in observed), engine.output])
    exact = integer.integers(images, [layer.name for layer in observed])
    pairs: list[tuple[str, Engines, IntArray, IntArray]] = []
    for layer, integers in observed.items():
        theirs = layer.to_integers(tensors[layer.output])
        pairs.append((layer.source, ("torch", "qonnx"), integers, theirs))
        pairs.append((layer.source, ("qonnx", "integer"), theirs, exact[layer.name]))
    ours, theirs, last = (
        _last(network, values)
        for values in (logits, _flat(tensors[engine.output]), integer.predict(images))
    )
    pairs.append((OUTPUT, ("torch", "qonnx"), ours, theirs))
    pairs.append((OUTPUT, ("qonnx", "integer"), theirs, last))
    return pairs


def _flat(logits: FloatArray) -> FloatArray:
    return logits.reshape(len(logits), int(np.prod(logits.shape[1:])))


def _last(network: Network, logits: FloatArray) -> IntArray:
    """The last accumulators behind float logits."""
    exact = (logits.astype(np.float64) - network.output.bias) / network.output.scale
    return np.rint(exact).astype(np.int64)


def _labels(logits: FloatArray) -> IntArray:
    labels: IntArray = logits.argmax(axis=1)[:, None]
    return labels
