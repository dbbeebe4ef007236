"""Where do two descriptions of one network differ first? From QONNX down to the RTL's streams."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import sha256_file
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.compile import FinnBuild, compare_steps
from fpga_flow.compile.codes import OneBit
from fpga_flow.engines.simulation import SimulationError
from fpga_flow.engines.taps import observe
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.export.noise import NoiseJudge
from fpga_flow.folding import shapes
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.lowering import Network
from fpga_flow.lowering.ir import Conv, Layer, MatMul, Reshape, Threshold
from fpga_flow.rtl.design import Design, Integers, Node

# Their output is their input's integers in the same order.
_CARRIERS = {"StreamingFIFO", "StreamingDataWidthConverter", "DuplicateStreams"}


@dataclass(frozen=True)
class Level:
    """One comparison with the integer engine.

    Attributes:
        name: ``QONNX``, ``FINN: step_streamline``, ``RTL``.
        tensors: integer tensors compared.
        mismatches: images with any differing integer.
        by_noise: of these, images of which float32 rounding accounts for every difference.
    """

    name: str
    tensors: int
    mismatches: int
    by_noise: int = 0


@dataclass(frozen=True)
class Fault:
    """The first difference.

    Attributes:
        level: where it appears: a name as of ``Level``.
        layer: the layer of the exported file whose integers differ.
        nodes: hardware nodes of which one is at fault, in network order; empty above RTL.
        detail: what differs.
    """

    level: str
    layer: str
    nodes: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Bisection(ShortRepr):
    """What ``bisect`` found; ``str`` gives the lines to print.

    Attributes:
        images: compared.
        levels: what was compared, in order, up to the first fault.
        fault: the first difference; None: all equal.
    """

    images: int
    levels: tuple[Level, ...]
    fault: Fault | None

    def __str__(self) -> str:
        """A line a level, then the fault."""
        lines = [
            f"{level.name}: {level.tensors} tensors, {self.images - level.mismatches} of "
            f"{self.images} images equal to the integer engine"
            + (f", {level.by_noise} but for float noise" if level.by_noise else "")
            for level in self.levels
        ]
        if self.fault is None:
            return "\n".join([*lines, "No difference."])
        fault = self.fault
        lines.append(f"First difference: {fault.level}, layer {fault.layer}: {fault.detail}")
        if fault.nodes:
            lines.append(f"At fault is one of: {', '.join(fault.nodes)}")
        return "\n".join(lines)


def bisect(
    onnx_path: Path,
    images: npt.NDArray[np.float32],
    *,
    build: FinnBuild | None = None,
    design: Design | None = None,
) -> Bisection:
    """Compare every description of a network with the integer engine, and stop at the first fault.

    The ladder: QONNX's own execution (every layer), FINN's model after every step, the RTL's
    streams (codes of every activation, last accumulators; between them, a weighted layer's
    accumulators up to the signs that FINN chose, or the counts they follow from).

    Args:
        onnx_path: the QONNX file.
        images: float32 (N, *input_shape) in the input range; a few are enough for most faults.
        build: its FINN build; None leaves out FINN's steps.
        design: its hardware design; None leaves out the RTL.

    Raises:
        InputError: build or design are of another file, or images of another kind.
        LoweringError: the network cannot become integers.
        ToolMissingError: finn-plus or Verilator is needed and not installed.

    Example:
        >>> print(bisect(Path("model.onnx"), images, design=design))  # doctest: +SKIP
        QONNX: 7 tensors, 8 of 8 images equal to the integer engine
        RTL: 3 tensors, 8 of 8 images equal to the integer engine
        No difference.
    """
    if design is not None and design.onnx_sha256 != sha256_file(onnx_path):
        raise InputError(
            f"the hardware design {design.folder} is of another file than {onnx_path}. "
            "Run `divqat compile` again."
        )
    engine = IntegerEngine(onnx_path)
    network = engine.network
    layers = [layer for layer in (network.input, *network.layers) if layer.mirrored]
    truth: Mapping[str, Integers] = engine.integers(images, [layer.output for layer in layers])
    levels: list[Level] = []
    fault = _qonnx(onnx_path, images, network, truth, levels)
    if fault is None and build is not None:
        fault = _finn(build, onnx_path, images, truth, levels)
    if fault is None and design is not None:
        fault = _rtl(design, images, network, truth, levels)
    return Bisection(len(images), tuple(levels), fault)


def _qonnx(
    path: Path,
    images: npt.NDArray[np.float32],
    network: Network,
    truth: Mapping[str, Integers],
    levels: list[Level],
) -> Fault | None:
    engine = QonnxEngine(path)
    tensors = engine.tensors(images, list(truth))
    layers = [network.layer(name) for name in truth]
    integers = {layer.output: layer.to_integers(tensors[layer.output]) for layer in layers}
    wrong = {layer: _differing(integers[layer.output], truth[layer.output]) for layer in layers}
    level = _level("QONNX", list(wrong.values()), len(images))
    if level.mismatches:
        faults = NoiseJudge(engine.model).judge(network.run(images), integers).faults
        wrong = {layer: faults[layer.output] > 0 for layer in layers}
        faulty = _level("QONNX", list(wrong.values()), len(images))
        level = replace(level, by_noise=level.mismatches - faulty.mismatches)
    levels.append(level)
    return _first("QONNX", wrong)


def _finn(
    build: FinnBuild,
    path: Path,
    images: npt.NDArray[np.float32],
    truth: Mapping[str, Integers],
    levels: list[Level],
) -> Fault | None:
    for row in compare_steps(build, path, images, truth):
        name = f"FINN: {row.step}"
        levels.append(Level(name, row.layers, row.mismatches))
        if row.mismatches:
            detail = f"{row.mismatches} of {row.inputs} images differ after this step."
            return Fault(name, row.first_layer or "?", (), detail)
    return None


def _rtl(
    design: Design,
    images: npt.NDArray[np.float32],
    network: Network,
    truth: Mapping[str, Integers],
    levels: list[Level],
) -> Fault | None:
    try:
        streams = observe(design, images)
    except SimulationError as e:
        levels.append(Level("RTL", 0, len(images)))
        nodes = tuple(node.name for node in design.nodes if f" {node.name} (" in str(e))[:1]
        return Fault("RTL", "the stream itself", nodes, str(e))
    weighted, one_bit = _weighted(design, network), OneBit.of(network)
    compared = [node for node in design.nodes if node.layer is not None]
    wrong = {
        node.name: _differing(
            one_bit.codes_of(network.layer(node.layer), streams[node.name])
            if node.output.bits == 1
            else streams[node.name],
            _flat(truth[node.layer]),
        )
        for node in compared
        if node.layer is not None
    }
    levels.append(_level("RTL", list(wrong.values()), len(images)))
    right: set[str] = set()  # nodes that are known to be right, and all that they take
    for node in design.nodes:
        before = design.before(node)
        if node.name in wrong:
            rows, layer = wrong[node.name], network.layer(node.layer or "")
        elif node.name in weighted:
            layer, behind = weighted[node.name]
            sums = streams[node.name].reshape(len(images), -1, layer.shape[0])
            if node.input.bits == 1 and isinstance(layer, Conv | MatMul):
                sums = one_bit.sums_of(layer, behind, sums, counts=not node.output.signed)
            rows = _differing_but_signs(sums, _flat(truth[layer.output]), layer.shape[0])
        elif node.op in _CARRIERS and before and before[0].name in right:
            rows = _differing(streams[node.name], streams[before[0].name])
            if rows.any():
                source = network.input
                return Fault("RTL", source.source, (node.name,), _count(rows) + " behind it.")
            layer = network.input
        else:
            continue
        if rows.any():
            return _rtl_fault(design, _suspects(design, node, right), layer, rows, streams)
        right.add(node.name)
    return None


def _suspects(design: Design, node: Node, right: Collection[str]) -> list[Node]:
    """The nodes that made what a node gives, up to those that are right, in network order."""
    found, waiting = {node.name}, [node]
    while waiting:
        for one in design.before(waiting.pop()):
            if one.name not in right and one.name not in found:
                found.add(one.name)
                waiting.append(one)
    return [one for one in design.nodes if one.name in found]


def _rtl_fault(
    design: Design,
    suspects: Sequence[Node],
    layer: Layer,
    rows: npt.NDArray[np.bool_],
    streams: Mapping[str, Integers],
) -> Fault:
    """Names the suspects without those that carried what they took."""
    names = []
    for k, node in enumerate(suspects):
        before = design.before(node)
        carries = node.op in _CARRIERS and k > 0 and bool(before)
        if not carries or _differing(streams[node.name], streams[before[0].name]).any():
            names.append(node.name)
    last = suspects[-1].name
    return Fault("RTL", layer.source, tuple(names), f"{_count(rows)} in the output of {last}.")


def _weighted(design: Design, network: Network) -> dict[str, tuple[Layer, Threshold]]:
    """Matrix-vector units whose output is a layer's accumulators, by name; the thresholds behind.

    Found from the thresholds behind them, which are known by the tensor of their codes.
    """
    found: dict[str, tuple[Layer, Threshold]] = {}
    for node in design.nodes:
        if node.op != "Thresholding" or node.layer is None:
            continue
        (unit,) = design.before(node)[:1] or [node]
        while unit.op in _CARRIERS and design.before(unit):
            unit = design.before(unit)[0]
        behind = network.layer(node.layer)
        layer = network.layer(behind.inputs[0])
        while isinstance(layer, Reshape):
            layer = network.layer(layer.inputs[0])
        if unit.op in shapes.PRODUCTS and layer.accumulates and isinstance(behind, Threshold):
            found[unit.name] = layer, behind
    return found


def _flat(values: Integers) -> Integers:
    """As they flow: channels last, (N, ...)."""
    if values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)
    return values.reshape(len(values), -1)


def _differing(a: Integers, b: Integers) -> npt.NDArray[np.bool_]:
    rows: npt.NDArray[np.bool_] = (a.reshape(len(a), -1) != b.reshape(len(b), -1)).any(axis=1)
    return rows


def _differing_but_signs(a: Integers, b: Integers, channels: int) -> npt.NDArray[np.bool_]:
    """Images that differ, where a whole channel may have the other sign."""
    a, b = a.reshape(len(a), -1, channels), b.reshape(len(b), -1, channels)
    same = (a != b).any(axis=1)
    mirrored = (a != -b).any(axis=1)
    fewer = same.sum(axis=0) <= mirrored.sum(axis=0)
    rows: npt.NDArray[np.bool_] = np.where(fewer, same, mirrored).any(axis=1)
    return rows


def _level(name: str, rows: Sequence[npt.NDArray[np.bool_]], images: int) -> Level:
    wrong = np.logical_or.reduce(rows) if rows else np.zeros(images, dtype=bool)
    return Level(name, len(rows), int(wrong.sum()))


def _first(name: str, wrong: Mapping[Layer, npt.NDArray[np.bool_]]) -> Fault | None:
    for layer, rows in wrong.items():
        if rows.any():
            return Fault(name, layer.source, (), f"{_count(rows)}.")
    return None


def _count(rows: npt.NDArray[np.bool_]) -> str:
    return f"{int(rows.sum())} of {len(rows)} images differ"
