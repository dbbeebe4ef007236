"""One network, executed in all ways: exact equality of every integer, whatever the batch."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from drawing import Images
from exact import Evaluation
from finn_networks import finn_worker
from numpy.typing import NDArray
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper

from divqat_brevitas.errors import DivQATError
from fpga_flow.compile import CompileSettings, FinnBuild, compile_finn, legality
from fpga_flow.compile.step_outputs import FinnSession
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import Difference
from fpga_flow.integer.native import NATIVE
from fpga_flow.lowering import Layer, Network, lower, settle
from fpga_flow.lowering.ir import Conv, MatMul, Threshold
from fpga_flow.rtl import generate_design
from fpga_flow.rtl.refusals import rtl_findings

Integers = dict[str, NDArray[np.int64]]


def engine_differences(network: Network, images: Images, batch: int | None = None) -> Iterator[str]:
    """Where the integer engine differs from the network's int64 definition.

    First with compiled C++ for few images, where there is a compiler, then without. All layers at
    once, then the fused plan of ``predict``: the same images together, again, in other numbers,
    one by one and out of another memory order.

    Args:
        network: of both.
        images: float32 (N, ...).
        batch: of the engine.
    """
    truth = network.run(images)
    engine = IntegerEngine(network, batch=batch)
    if engine.few:
        yield from _engine_differences(engine, images, truth)
        engine.distrust(Difference("all", NATIVE, ("all",), 1))
    yield from _engine_differences(engine, images, truth)


def _engine_differences(engine: IntegerEngine, images: Images, truth: Integers) -> Iterator[str]:
    network = engine.network
    logits = network.output.logits(truth[network.output.tensor])

    def predicted(way: str, part: Images, expected: NDArray[np.float32]) -> Iterator[str]:
        found = engine.predict(part)
        wrong = int((found != expected).any(axis=1).sum()) if found.shape == expected.shape else -1
        if wrong:
            yield f"predict, {way}: {wrong} of {len(part)} images, kernels {engine.kernels}"

    yield from predicted("in a batch", images, logits)
    yield from predicted("again", images, logits)
    for count in (3, 7):
        yield from predicted(f"{count} images", images[-count:], logits[-count:])
    for at in range(0, len(images), 4):
        yield from predicted(f"image {at} alone", images[at : at + 1], logits[at : at + 1])
    backwards = np.moveaxis(np.ascontiguousarray(np.moveaxis(images, 1, -1)), -1, 1)[::-1]
    yield from predicted("channels last, backwards", backwards, logits[::-1])
    for name, found in engine.accumulators(images).items():
        yield from _layer(network.layer(name), found, truth[network.layer(name).output])
    found = engine.integers(images[:5], [layer.output for layer in network.layers])
    for layer in network.layers:
        yield from _layer(layer, found[layer.output], truth[layer.output][:5])


def definition_differences(
    network: Network, model: ModelProto, images: Images, found: Evaluation
) -> Iterator[str]:
    """Where the int64 definition differs from the exact evaluation of the file."""
    truth = network.run(images)
    tensors = {node.name: node.output[0] for node in model.graph.node}
    for layer in (network.input, *network.layers):
        if layer.source not in tensors:
            continue
        ours = truth[layer.output]
        if layer.source in found.codes:
            theirs = found.codes[layer.source].reshape(ours.shape)
            near = found.near.get(layer.source)
            # Beside a level but within its tolerance the definition takes it for a tie.
            excused = np.zeros(ours.shape, bool) if near is None else near.reshape(ours.shape)
            yield from _layer(layer, np.where(excused, ours, theirs), ours)
        elif layer.mirrored:
            values = found.values[tensors[layer.source]].floats.reshape(ours.shape)
            yield from _layer(layer, layer.to_integers(values), ours)
        low, high = (e.reshape(-1, *[1] * (ours.ndim - 2)) for e in (layer.low, layer.high))
        if not ((low <= ours) & (ours <= high)).all():
            yield f"{layer.name}: integers outside of [low, high]"
    exact = found.values[model.graph.output[0].name].floats
    output = network.output
    integers = truth[output.tensor].reshape(len(images), -1)
    # float32 rounds once; before that float64 rounds the two terms, which may cancel.
    terms = np.abs(integers * output.scale) + np.abs(output.bias)
    allowed = 2.0**-23 * np.abs(exact) + 2.0**-50 * terms
    if not (np.abs(network.predict(images) - exact.reshape(terms.shape)) <= allowed).all():
        yield "logits: more than one rounding away from the exact ones"


def qonnx_differences(cleaned: ModelWrapper, images: Images) -> Iterator[str]:
    """Where QONNX's own execution in float32 differs, thresholds moved off the integers first."""
    settle(cleaned)
    network = lower(cleaned)
    truth = network.run(images)
    layers = [layer for layer in network.layers if layer.tensor]
    floats = QonnxEngine(cleaned, batch=4).tensors(images, [layer.output for layer in layers])
    for layer in layers:
        yield from _layer(layer, layer.to_integers(floats[layer.output]), truth[layer.output])


def prediction_differences(
    name: str, predict: Callable[[Images], Any], network: Network, images: Images
) -> Iterator[str]:
    """Where another engine's logits differ."""
    found, expected = predict(images), network.predict(images)
    if found.shape != expected.shape:
        yield f"{name}: logits of shape {found.shape}, not {expected.shape}"
    elif wrong := int((found != expected).any(axis=1).sum()):
        yield f"{name}: {wrong} of {len(images)} images"


def _layer(layer: Layer, found: NDArray[Any], expected: NDArray[Any]) -> Iterator[str]:
    if found.shape != expected.shape:
        yield f"{described(layer)}: shape {found.shape}, not {expected.shape}"
        return
    wrong = (found != expected).reshape(len(expected), -1)
    if wrong.any():
        most = int(np.abs(found - expected).max())
        yield f"{described(layer)}: {int(wrong.any(axis=1).sum())} images, by up to {most}"


def described(layer: Layer) -> str:
    """A layer with the geometry that a kernel depends on."""
    text = f"{layer.name} -> {layer.shape}"
    if isinstance(layer, Conv):
        geometry = (layer.weight.shape, layer.strides, layer.pads, layer.dilations, layer.groups)
        return f"{text} weight, strides, pads, dilations, groups {geometry}"
    if isinstance(layer, MatMul):
        return f"{text} weight {layer.weight.shape}"
    if isinstance(layer, Threshold):
        return f"{text} thresholds {layer.thresholds.shape}"
    return text


def why_not(path: Path, engine: str) -> str:
    """What ``check`` finds, for the engine "finn" or "rtl"; empty: nothing."""
    findings = legality(path) or (rtl_findings(path) if engine == "rtl" else [])
    return f"check: {findings[0].op}: {findings[0].problem}" if findings else ""


def hardware_differences(
    engine: str, path: Path, network: Network, images: Images, folder: Path
) -> Iterator[str]:
    """Where a legal network does not build, or differs from its int64 definition.

    Args:
        engine: "finn" or "rtl".
        path: the QONNX file.
        network: its lowering.
        images: float32 (N, ...).
        folder: for the build.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            # Builds for an open device have what is only for it: bits between the layers.
            settings = CompileSettings(target="ecp5-85f" if engine == "rtl" else None)
            build = compile_finn(path, Path(place) / "build", settings, finn_worker())
            if engine == "finn":
                yield from _executed(build, network, images)
            else:
                yield from _simulated(build, Path(place), network, images)
    except DivQATError as e:
        said = " ".join(str(e).split())[:240]
        yield f"check finds nothing, and {engine} refuses: {type(e).__name__}: {said}"


def _executed(build: FinnBuild, network: Network, images: Images) -> Iterator[str]:
    with FinnSession(build, finn_worker()) as session:
        last = list(build.steps)[-1]

        def predict(part: Images) -> Images:
            return session.run(last, part).logits

        yield from prediction_differences("finn", predict, network, images)


def _simulated(build: FinnBuild, folder: Path, network: Network, images: Images) -> Iterator[str]:
    design = generate_design(build, folder / "design", worker=finn_worker())
    with RtlEngine(design, threads=1) as engine:
        yield from prediction_differences("rtl", engine.predict, network, images)
