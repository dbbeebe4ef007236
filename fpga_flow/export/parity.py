"""The parity gate: torch in evaluation mode, ``qonnx.execute_onnx`` and the integer engine.

Everything is compared as integers, with exact equality: the codes of every activation
quantizer and the accumulators of every weighted layer, recovered by dividing by the scale. What
differs is a fault, unless float32 rounding provably accounts for it (see ``noise``): that is
counted, and said in every report.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.files import sha256_file
from divqat_brevitas.input_range import UNIT, InputRange
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.export.differences import OUTPUT, Differences, Engines, FloatNoise, Integers
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.export.observe import logits_of, observe
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import Difference, gate
from fpga_flow.lowering import Network
from fpga_flow.lowering.inputs import InputQuant
from fpga_flow.lowering.ir import IntArray, Threshold

FloatArray = npt.NDArray[np.float32]
_BATCH = 64
_REMEDY = (
    "A weight quantizer that does not round to nearest exports wrong integers from Brevitas: use "
    "the DivQAT quantizers (swap_quantizers) for that layer. Anything else please report."
)


@dataclass(frozen=True)
class ParityResult(ShortRepr):
    """Outcome of a comparison.

    Attributes:
        inputs: images compared.
        mismatches: images with any differing integer (or label, see ``unit``).
        by_noise: of these, images of which float noise accounts for every difference.
        unit: "accumulators", or "labels" for a model that cannot be lowered to integers.
        layers: names of the layers compared, as in the exported file; the last is "output".
        pairs: by two engines, images that differ between them, and how many of these by noise.
        noise: what float noise decided, an entry an engine; empty as a rule.
        first_layer: the first layer with a difference that is no noise, or None.
        first_image: index of the first image that differs there, or None.
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
    by_noise: int = 0
    noise: tuple[FloatNoise, ...] = ()
    pairs: dict[Engines, tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def faults(self) -> int:
        """Images with a difference that float noise does not account for."""
        return self.mismatches - self.by_noise


class ParityError(CheckFailedError):
    """Torch, the exported file and the integer engine do not compute the same (exit code 1).

    Args:
        result: the comparison.
        path: of the file that was to be written.
        exporter: which torch exporter.

    Attributes:
        result: the comparison.
    """

    def __init__(self, result: ParityResult, path: Path, exporter: str):
        self.result = result
        how = f"image {result.first_image}, by up to {result.largest} {result.unit}"
        if result.shapes is not None:
            how = "shapes {} and {}".format(*result.shapes)
        super().__init__(
            f"export parity failed for {path} ({exporter} exporter): "
            f"{' and '.join(result.engines or ())} differ on {result.faults} of "
            f"{result.inputs} images, first in layer {result.first_layer!r} ({how}). The "
            f"file was not written. {_REMEDY}"
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
    model: nn.Module,
    onnx_path: Path,
    images: FloatArray,
    network: Network | None,
    show: Callable[[int], None] = lambda done: None,
) -> ParityResult:
    """Compare a torch model, the QONNX file exported from it, and the integer engine on that file.

    Shapes are compared before values.

    Args:
        model: the Brevitas model; executed in evaluation mode.
        onnx_path: the exported file.
        images: float32 (N, ...) in the input range.
        network: the file lowered to integers; None compares labels only.
        show: called with the number of images compared so far.
    """
    engine = QonnxEngine(onnx_path, batch=min(_BATCH, len(images)))
    integer = None if network is None else IntegerEngine(network)
    replaced = () if integer is None else gate(integer, sha256_file(onnx_path))
    table = Differences(engine.model, network, len(images))
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        if integer is None:
            logits = logits_of(model, part), engine.predict(part)
            ours, theirs = ({OUTPUT: one.argmax(axis=1)[:, None]} for one in logits)
            table.add(start, part, ours, theirs, {})
        else:
            table.add(start, part, *_integers(model, engine, integer, part))
        show(start + len(part))
    first = table.first_fault
    fault: dict[str, Any] = {}
    if first is not None:
        fault = {"first_layer": first.layer, "first_image": first.image}
        fault |= {name: getattr(first, name) for name in ("largest", "engines", "shapes")}
    return ParityResult(
        inputs=len(images),
        mismatches=int(table.differing.sum()),
        by_noise=int((table.differing & ~table.faulty).sum()),
        unit="labels" if network is None else "accumulators",
        layers=table.layers,
        pairs=table.pairs,
        noise=table.noise,
        replaced=replaced,
        **fault,
    )


def _integers(
    model: nn.Module, engine: QonnxEngine, integer: IntegerEngine, images: FloatArray
) -> tuple[Integers, Integers, Integers]:
    """Integers of torch, QONNX and the integer engine; torch does not show every layer."""
    network = integer.network
    logits, observed = observe(model, network, images)
    layers = [
        layer
        for layer in (network.input, *network.layers)
        if layer.accumulates or isinstance(layer, InputQuant | Threshold)
    ]
    names = [layer.output for layer in layers]
    # One execution gives the logits too.
    tensors = engine.tensors(images, [*names, engine.output])
    torchs = {layer.output: integers for layer, integers in observed.items()}
    layers.sort(key=lambda layer: layer.position)  # as torch ran them
    floats = {layer.output: layer.to_integers(tensors[layer.output]) for layer in layers}
    torchs[OUTPUT] = _last(network, logits)
    output = tensors[engine.output]
    floats[OUTPUT] = _last(network, output.reshape(len(output), int(np.prod(output.shape[1:]))))
    exact = integer.integers(images, names) | {OUTPUT: _last(network, integer.predict(images))}
    return torchs, floats, exact


def _last(network: Network, logits: FloatArray) -> IntArray:
    """The last accumulators behind float logits."""
    exact = (logits.astype(np.float64) - network.output.bias) / network.output.scale
    return np.rint(exact).astype(np.int64)
