"""Float noise at thresholds: accepted and counted where float32 cannot decide, nowhere else.

The network's scales are powers of two and it has no biases: sums lie exactly on thresholds, which
nothing can move. All engines decide these exactly here, so a torch layer is changed by hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas import quant
from fpga_flow.engines.bisect import bisect
from fpga_flow.export import ExportReport, ParityResult, compare, export_qonnx
from fpga_flow.export.execution import QonnxEngine
from fpga_flow.lowering import lower
from fpga_flow.lowering.ir import Threshold
from fpga_flow.lowering.reference import run

RELU, LINEAR = 2, 4  # in the model
Place = tuple[int, ...]


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    return pixels.astype(np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def exported(images: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    torch.manual_seed(0)
    act = quant.Uint4ActPerTensorFixedPointDivQAT
    weights: dict[str, Any] = {
        "bias": False,
        "weight_quant": quant.Int4WeightPerTensorFixedPointDivQAT,
    }
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=act),
        qnn.QuantConv2d(1, 4, 3, **weights),
        qnn.QuantReLU(act_quant=act),
        nn.Flatten(),
        qnn.QuantLinear(4 * 36, 5, **weights),
    )
    for _ in range(3):
        model(torch.from_numpy(images))
    report = export_qonnx(model.eval(), tmp_path_factory.mktemp("m") / "m.onnx", images)
    assert report.parity.mismatches == 0
    return report


def compared(report: ExportReport, images: NDArray[np.float32], **changes: Any) -> ParityResult:
    return compare(report.model, report.path, images, changes.get("network", report.network))


@contextmanager
def changed_sum(report: ExportReport, place: Place, delta: float) -> Iterator[None]:
    """Torch adds ``delta`` to one value between the convolution and its quantizer."""

    def hook(module: Any, inputs: Any) -> Any:
        value = torch.as_tensor(inputs[0]).clone()
        value[place] += delta
        return value

    handle = report.model[RELU].register_forward_pre_hook(hook)  # type: ignore[index]
    try:
        yield
    finally:
        handle.remove()


def scaled_sums(report: ExportReport, images: NDArray[np.float32]) -> tuple[Any, float]:
    """What the first quantizer rounds, in its steps, and a step's value."""
    assert report.network is not None
    conv, relu = report.network.layer("Conv_0"), report.network.layer("Quant_3")
    step = float(relu.scale.max())
    return report.network.run(images)[conv.output] * (float(conv.scale.max()) / step), step


def first(mask: NDArray[np.bool_]) -> Place:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def tie(report: ExportReport, images: NDArray[np.float32]) -> tuple[Place, float]:
    """A sum on the threshold of codes 1 and 2, which rounds up, and a step's value."""
    sums, step = scaled_sums(report, images)
    return first(sums == 1.5), step


def test_a_tie_that_rounding_may_decide_is_accepted_and_counted(
    exported: ExportReport, images: NDArray[np.float32]
) -> None:
    place, step = tie(exported, images)
    with changed_sum(exported, place, -step / 8):
        result = compared(exported, images)
    assert exported.network is not None
    assert (result.mismatches, result.by_noise, result.faults) == (1, 1, 0)
    assert result.first_layer is None
    (noise,) = result.noise
    assert (noise.engine, noise.images) == ("torch", 1)
    assert noise.places == {exported.network.layer("Quant_3").source: 1}
    assert noise.logits == 1  # a code of 1 and not 2 reaches the logits
    assert result.pairs == {("torch", "qonnx"): (1, 1), ("qonnx", "integer"): (0, 0)}
    assert "decided codes of 1 images" in str(noise)


@pytest.mark.parametrize(
    ("sums_of", "steps"),
    [
        (1.25, -1.0),  # a quarter of a code from any threshold: far outside the bound
        (1.5, -1.125),  # on a threshold, but two codes
        (1.5, 1.125),  # on a threshold, but over the next one
    ],
)
def test_any_other_difference_is_refused(
    exported: ExportReport, images: NDArray[np.float32], sums_of: float, steps: float
) -> None:
    sums, step = scaled_sums(exported, images)
    place = first(sums == sums_of)
    with changed_sum(exported, place, steps * step):
        result = compared(exported, images)
    assert exported.network is not None
    assert (result.mismatches, result.by_noise, result.noise) == (1, 0, ())
    assert result.first_layer == exported.network.layer("Quant_3").source
    assert (result.first_image, result.engines) == (place[0], ("torch", "qonnx"))


def test_what_follows_from_a_tie_is_computed_and_compared(
    exported: ExportReport, images: NDArray[np.float32]
) -> None:
    place, step = tie(exported, images)
    assert exported.network is not None
    last = exported.network.layer(exported.network.output.tensor)

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        value = torch.as_tensor(output).clone()
        value[place[0], 0] += float(last.scale.max())
        return value

    handle = exported.model[LINEAR].register_forward_hook(hook)  # type: ignore[index]
    try:
        with changed_sum(exported, place, -step / 8):
            result = compared(exported, images)
    finally:
        handle.remove()
    assert (result.mismatches, result.by_noise) == (1, 0)
    assert result.first_layer == last.source
    assert (result.largest, result.noise[0].images) == (1, 1)


def test_an_integer_engine_that_decides_a_tie_otherwise_is_refused(
    exported: ExportReport, images: NDArray[np.float32]
) -> None:
    """The same difference of one code at the same place, made by a threshold one too high."""
    network = exported.network
    assert network is not None
    broken = tuple(
        replace(layer, thresholds=layer.thresholds + 1) if isinstance(layer, Threshold) else layer
        for layer in network.layers
    )
    result = compared(exported, images, network=replace(network, layers=broken))
    assert (result.by_noise, result.faults) == (0, result.mismatches)
    assert result.faults > 0
    assert result.first_layer == network.layer("Quant_3").source
    assert result.engines == ("integer", "int64 definition")


@pytest.mark.parametrize("code_change", [-1, 1])
def test_bisect_goes_on_behind_noise_and_names_a_fault(
    exported: ExportReport,
    images: NDArray[np.float32],
    code_change: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sum that ties between codes 1 and 2: QONNX may put out 1; 3 is a fault."""
    tensors = QonnxEngine.tensors
    network = lower(exported.path)
    place, _ = tie(exported, images)
    relu = network.layer("Quant_3")

    def noisy(self: QonnxEngine, images: Any, names: Any) -> dict[str, NDArray[np.float32]]:
        found = tensors(self, images, names)
        integers = {relu.output: relu.to_integers(found[relu.output])}
        integers[relu.output][place] += code_change
        for layer in network.layers[network.layers.index(relu) + 1 :]:
            integers[layer.output] = run(layer, [integers[name] for name in layer.inputs])
        for name, values in integers.items():
            layer = network.layer(name)
            found[name] = (values * layer.scale + layer.bias).astype(np.float32)
        return found

    monkeypatch.setattr(QonnxEngine, "tensors", noisy)
    result = bisect(exported.path, images)
    level = result.levels[0]
    if code_change < 0:
        assert result.fault is None
        assert (level.mismatches, level.by_noise) == (1, 1)
        assert "1 but for float noise" in str(result)
    else:
        assert result.fault is not None
        assert (result.fault.layer, level.mismatches, level.by_noise) == (relu.source, 1, 0)
