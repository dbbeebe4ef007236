"""The parity gate: torch in evaluation mode against ``qonnx.execute_onnx``, layer by layer.

Everything is compared as integers, with exact equality: the codes of every activation
quantizer and the accumulators of every weighted layer, recovered by dividing by the scale.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.input_range import UNIT, InputRange
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.export.observe import logits_of, observe
from fpga_flow.lowering import Network
from fpga_flow.lowering.ir import IntArray

FloatArray = npt.NDArray[np.float32]
OUTPUT = "output"
_BATCH = 64


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
    """

    inputs: int
    mismatches: int
    unit: str
    layers: tuple[str, ...] = field(repr=False)
    first_layer: str | None = None
    first_image: int | None = None
    largest: int = 0


class ParityError(CheckFailedError):
    """The exported file computes something else than the torch model (exit code 1).

    Attributes:
        result: the comparison.
    """

    def __init__(self, result: ParityResult, path: Path, exporter: str):
        self.result = result
        super().__init__(
            f"export parity failed for {path} ({exporter} exporter): QONNX execution differs from "
            f"torch on {result.mismatches} of {result.inputs} images, first in layer "
            f"{result.first_layer!r} (image {result.first_image}, by up to {result.largest} "
            f"{result.unit}). The file was not written. A weight quantizer that does not round to "
            "nearest exports wrong integers from Brevitas: use the DivQAT quantizers "
            "(swap_quantizers) for that layer. One step in an activation quantizer can be float "
            "noise at a threshold that no bias of the model could move (batch norm merged and "
            "biases quantized, as brevitas.graph does): keep batch norm (merge_bn=False) or use "
            "bias_quant=None. Anything else please report."
        )


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
    """Compare a torch model with the QONNX file exported from it.

    Args:
        model: the Brevitas model; executed in evaluation mode.
        onnx_path: the exported file.
        images: float32 (N, ...) in the input range.
        network: the file lowered to integers; None compares labels only.
    """
    engine = QonnxEngine(onnx_path, batch=min(_BATCH, len(images)))
    differs: dict[str, list[IntArray]] = {}
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        if network is None:
            pair = {OUTPUT: (_labels(logits_of(model, part)), _labels(engine.predict(part)))}
        else:
            pair = _integers(model, engine, network, part)
        for name, (ours, theirs) in pair.items():
            distance = np.abs(ours - theirs).reshape(len(part), -1).max(axis=1)
            differs.setdefault(name, []).append(distance)
    distances = {name: np.concatenate(parts) for name, parts in differs.items()}
    first = next((name for name, distance in distances.items() if distance.any()), None)
    return ParityResult(
        inputs=len(images),
        mismatches=int(np.any(list(distances.values()), axis=0).sum()),
        unit="labels" if network is None else "accumulators",
        layers=tuple(distances),
        first_layer=first,
        first_image=None if first is None else int(np.flatnonzero(distances[first])[0]),
        largest=0 if first is None else int(distances[first].max()),
    )


def _integers(
    model: nn.Module, engine: QonnxEngine, network: Network, images: FloatArray
) -> dict[str, tuple[IntArray, IntArray]]:
    """By layer, in order of execution: torch's integers and QONNX's."""
    logits, observed = observe(model, network, images)
    # One execution gives the logits too.
    tensors = engine.tensors(images, [*(layer.output for layer in observed), engine.output])
    pairs = {
        layer.source: (integers, layer.to_integers(tensors[layer.output]))
        for layer, integers in observed.items()
    }
    theirs = tensors[engine.output].reshape(logits.shape)
    pairs[OUTPUT] = (_last(network, logits), _last(network, theirs))
    return pairs


def _last(network: Network, logits: FloatArray) -> IntArray:
    """The last accumulators behind float logits."""
    exact = (logits.astype(np.float64) - network.output.bias) / network.output.scale
    return np.rint(exact).astype(np.int64)


def _labels(logits: FloatArray) -> IntArray:
    labels: IntArray = logits.argmax(axis=1)[:, None]
    return labels
