"""Networks of many seeds, and what came of them: compared, refused with a reason, or at fault."""

import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import brevitas_networks
import exact
import layer_networks
import numpy as np
import onnx
import qonnx_networks
from comparing import (
    definition_differences,
    engine_differences,
    hardware_differences,
    qonnx_differences,
    why_not,
)
from drawing import hard_images
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import DivQATError
from fpga_flow import export_qonnx
from fpga_flow.export import ParityError
from fpga_flow.lowering import Network, clean, lower
from fpga_flow.lowering.lower import trace


class Refused(Exception):  # noqa: N818  (not an error: one of three outcomes)
    """The project does not take the network, and says why."""


@dataclass
class Outcome:
    """Of a range of seeds."""

    networks: int = 0
    compared: int = 0
    images: int = 0
    layers: int = 0
    ties: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.networks} networks, {self.reasons.total()} refused, {self.compared} compared: "
            f"{self.images} images, {self.layers} layers, {self.ties} values on ties, "
            f"{len(self.differences)} differences, {len(self.faults)} faults"
        )


Check = Callable[[int, Outcome, Path], Iterator[str]]


def layers(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """An integer network without a file: int64 definition and integer engine."""
    drawn = layer_networks.draw(seed)
    yield drawn.line
    network = drawn.network
    scale = float(network.input.quantizer.scale)
    images = hard_images(network.input_shape, scale, seed, random_ones=3)
    yield from engine_differences(network, images, _batch(seed))
    _count(outcome, network, len(images))


def qonnx(seed: int, outcome: Outcome, folder: Path, executed: bool = False) -> Iterator[str]:
    """A raw QONNX graph: exact evaluation, int64 definition, integer engine (and QONNX)."""
    drawn = qonnx_networks.draw(seed)
    yield drawn.line
    cleaned = clean(ModelWrapper(drawn.model))
    network = trace(cleaned)[0]
    images = hard_images(drawn.shape, drawn.scale, seed, random_ones=3)
    found = exact.evaluate(drawn.model, images)
    outcome.ties += found.ties
    yield from definition_differences(network, drawn.model, images, found)
    yield from engine_differences(network, images, _batch(seed))
    if executed:
        yield from qonnx_differences(cleaned, images)
    _count(outcome, network, len(images))


def executed_qonnx(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """The same, and QONNX's own execution."""
    yield from qonnx(seed, outcome, folder, executed=True)


def brevitas(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """A Brevitas network through the export and its gate; then the file in the integer engine."""
    drawn = brevitas_networks.draw(seed)
    yield drawn.line
    network, images, _ = _exported(seed, drawn, folder)
    yield from engine_differences(network, images, _batch(seed))
    _count(outcome, network, len(images))


def hardware(
    seed: int, outcome: Outcome, folder: Path, engine: str, mostly: str = ""
) -> Iterator[str]:
    """A network in which ``check`` finds nothing, through FINN or Verilator.

    Even seeds are raw QONNX graphs, odd ones Brevitas networks; those that are ``mostly`` of one
    kind are all Brevitas networks.
    """
    if seed % 2 or mostly:
        drawn = brevitas_networks.draw(seed, hardware=True, mostly=mostly)
        yield drawn.line
        network, images, path = _exported(seed, drawn, folder)
    else:
        raw = qonnx_networks.draw(seed)
        yield raw.line
        path = folder / "network.onnx"
        onnx.save(raw.model, path)
        network, images = lower(path), hard_images(raw.shape, raw.scale, seed, random_ones=3)
    if reason := why_not(path, engine):
        raise Refused(reason)
    yield from hardware_differences(engine, path, network, images[-6:], folder)
    _count(outcome, network, len(images[-6:]))


def finn(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """Through FINN."""
    yield from hardware(seed, outcome, folder, "finn")


def rtl(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """Through FINN, stitching and Verilator."""
    yield from hardware(seed, outcome, folder, "rtl")


def branches(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """Residual sums, concatenations and averages, through FINN, stitching and Verilator."""
    yield from hardware(seed, outcome, folder, "rtl", mostly="branches")


def depthwise(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """Separable convolutions and averages, through FINN, stitching and Verilator."""
    yield from hardware(seed, outcome, folder, "rtl", mostly="depthwise")


def one_bit(seed: int, outcome: Outcome, folder: Path) -> Iterator[str]:
    """One-bit weights and activations, through FINN, stitching and Verilator."""
    yield from hardware(seed, outcome, folder, "rtl", mostly="one-bit")


CHECKS: dict[str, Check] = {
    "layers": layers,
    "qonnx": qonnx,
    "executed-qonnx": executed_qonnx,
    "brevitas": brevitas,
    "finn": finn,
    "rtl": rtl,
    "branches": branches,
    "depthwise": depthwise,
    "one-bit": one_bit,
}


def run(kind: str, seed: int, outcome: Outcome, folder: Path) -> str:
    """One network: counted in ``outcome``.

    Returns:
        the network in a line.
    """
    line, outcome.networks = "not drawn", outcome.networks + 1
    steps = CHECKS[kind](seed, outcome, folder)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            line = next(steps)
            differences = list(steps)
    except (DivQATError, Refused) as e:
        outcome.reasons[_reason(e)] += 1
    except Exception as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        at = f"{Path(where.filename).name}:{where.lineno}"
        said = " ".join(str(e).split())[:240]
        outcome.faults.append(f"{kind} {seed}: {type(e).__name__} at {at}: {said} | {line}")
    else:
        # The first says most: layers behind it differ because of it.
        if differences:
            more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
            outcome.differences.append(f"{kind} {seed}: {differences[0]}{more} | {line}")
    return line


def _exported(
    seed: int, drawn: brevitas_networks.Drawn, folder: Path
) -> tuple[Network, np.ndarray, Path]:
    path = folder / "network.onnx"
    pixels = np.random.default_rng(seed).integers(0, 256, (4, *drawn.shape), dtype=np.uint8)
    report = export_qonnx(drawn.model, path, pixels.astype(np.float32) / 255)
    if report.network is None:
        raise Refused(f"not lowered: {report.not_lowered}")
    scale = float(np.max(report.network.input.scale))
    return report.network, hard_images(drawn.shape, scale, seed, random_ones=3), path


def _batch(seed: int) -> int | None:
    """Mostly the engine's own choice."""
    return (None, None, 1, None, 4, None, None, 5)[seed % 8]


def _count(outcome: Outcome, network: Network, images: int) -> None:
    outcome.compared += 1
    outcome.images += images
    outcome.layers += len(network.layers)


def _reason(error: Exception) -> str:
    """The message without names and numbers."""
    text = re.sub(r"\(in the file: '[^']*'\)|'[^']*'|[\d.]*\d", "…", str(error))
    kind = "parity: " if isinstance(error, ParityError) else ""
    return kind + re.sub(r"\s+", " ", text)[:110]
