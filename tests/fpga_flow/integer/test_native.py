"""Few images in compiled C++: equal integers, a gate that names what is wrong, and ways without."""

import ctypes
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import kernel_layers as layers
import numpy as np
import pytest
from engine_models import random_images, small_network

from divqat_brevitas import native as compiling
from divqat_brevitas.errors import InputError
from divqat_brevitas.input_range import InputRange
from fpga_flow.integer import native
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import KernelWarning
from fpga_flow.integer.native import NATIVE, NativeNetwork
from fpga_flow.integer.native_layers import NotNativeError
from fpga_flow.integer.rescale import fit_rescale
from fpga_flow.lowering import Layer, Network, lower
from fpga_flow.lowering.inputs import FloatStep, InputQuant
from fpga_flow.lowering.ir import Add, Concat, MatMul, MaxPool, Pad, Reshape, SumPool
from fpga_flow.lowering.network import OutputAffine
from fpga_flow.lowering.quantizers import Quantizer

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, compiling.COMPILERS)), reason="no C++ compiler"
)
BASELINE = [flag for flag in compiling.COMMAND if flag != "-march=native"]


@cache
def library(kind: str) -> ctypes.CDLL:
    """For this processor, or for any of its kind: other vectors."""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "baseline":
            patch.setattr(compiling, "COMMAND", BASELINE)
        found = native.library.__wrapped__()
    assert found is not None
    return found


both = pytest.mark.parametrize("kind", ["native", "baseline"])


def network(source: Layer, *others: Layer) -> Network:
    """Layers behind ``source``, which is what a quantizer of the image writes."""
    low, high = int(source.low.min()), int(source.high.max())
    assert (low, high) in ((-128, 127), (0, 255), (-1, 1))
    q = Quantizer(np.float32(0.25), 8 - 7 * (high == 1), low < 0, False, "ROUND", high == 1)
    first = InputQuant(
        **{**layers.common(source.shape, low, high), "name": "image", "output": "x"},
        quantizer=q,
        preamble=(),
    )
    last = others[-1]
    classes = int(np.prod(last.shape))
    if len(last.shape) > 1:
        ends = int(last.low.min()), int(last.high.max())
        flat = Reshape(**layers.common((classes,), *ends))
        others = (*others, named(flat, "logits", last.output))
    output = OutputAffine(others[-1].output, np.full(classes, 0.3), np.full(classes, 0.1))
    return Network(first, others, output, source.shape, InputRange(-40, 80))


def named(layer: Layer, name: str, *inputs: str) -> Any:
    return replace(layer, name=name, output=name, inputs=inputs or ("x",))


def assert_equal(one: Network, kind: str) -> None:
    compiled = NativeNetwork(one, library(kind))
    assert compiled.agrees()
    images = np.random.default_rng(0).uniform(-40, 80, (3, *one.input_shape)).astype(np.float32)
    expected = one.run(images)
    integers = compiled.integers(images, expected)
    for name, values in expected.items():
        assert np.array_equal(integers[name], values), name
    logits = compiled.logits(images[: compiled.few])
    assert logits is not None
    assert np.array_equal(logits, one.predict(images[: compiled.few]))


@both
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ((1, 7, 9), {}),
        ((3, 8, 8), {"strides": (2, 2), "pads": (0, 1, 2, 0)}),
        ((4, 9, 8), {"dilations": (2, 3), "pads": (2, 3, 1, 0)}),
        ((6, 7, 7), {"groups": 6}),
        ((6, 7, 7), {"groups": 2, "strides": (1, 3), "dilations": (2, 1)}),
        ((17, 3, 2), {"pads": (0, 0, 0, 0)}),
    ],
)
def test_convolutions(kind: str, signed: bool, shape: Any, parameters: Any) -> None:
    rng = np.random.default_rng(1)
    before = layers.source(shape, *((-128, 127) if signed else (0, 255)))
    conv = layers.with_range(layers.conv(rng, shape, 128, **parameters), before)
    line, steps = layers.quantizer(rng, conv, 15), layers.threshold(rng, conv, 7, step=2)
    assert fit_rescale(line, conv) is not None
    assert fit_rescale(steps, conv) is None  # compared one by one
    one = network(
        before,
        named(conv, "conv"),
        named(line, "line", "conv"),
        named(steps, "steps", "conv"),
    )
    assert_equal(one, kind)


@both
def test_every_other_layer(kind: str) -> None:
    rng = np.random.default_rng(2)
    x = layers.source((5, 6, 7), -128, 127)

    def common(shape: Any, low: int, high: int) -> dict[str, Any]:
        return layers.common(shape, low, high)

    signs = rng.choice([-1, 1], 5)
    windows = {"kernel": (3, 2), "strides": (2, 3), "pads": (1, 0, 1, 1)}
    pool = MaxPool(**common((5, 3, 3), -128, 127), signs=signs, dilations=(1, 1), **windows)
    total = SumPool(**common((5, 3, 3), -1536, 1524), factors=rng.integers(1, 3, (3, 3)), **windows)
    shifts = rng.integers(0, 3, (2, 5))
    add = Add(**common((5, 3, 3), -6656, 6604), shifts=shifts)
    joined = Concat(**common((10, 3, 3), -512, 508), shifts=rng.integers(0, 3, 10))
    padded = Pad(**common((10, 5, 6), -512, 508), pads=(1, 2, 1, 1), fill=-3)
    flat = Reshape(**common((300,), -512, 508))
    weight = rng.integers(-8, 8, (300, 9))
    product = layers.with_range(MatMul(**common((9,), 0, 0), weight=weight, weight_bits=4), flat)
    assert_equal(
        network(
            x,
            named(pool, "pool"),
            named(total, "total"),
            named(add, "add", "pool", "total"),
            named(joined, "joined", "pool", "pool"),
            named(padded, "padded", "joined"),
            named(flat, "flat", "padded"),
            named(product, "product", "flat"),
        ),
        kind,
    )


@pytest.mark.parametrize("unusual", ["preamble", "bipolar", "floor"])
def test_images_that_numpy_quantizes(unusual: str) -> None:
    x = layers.source((4,), *((-1, 1) if unusual == "bipolar" else (0, 255)))
    weight = np.random.default_rng(3).integers(-8, 8, (4, 3))
    product = MatMul(**layers.common((3,)), weight=weight, weight_bits=4)
    one = network(x, named(layers.with_range(product, x), "product"))
    entry = one.input
    if unusual == "preamble":
        step = FloatStep("Mul", (4,), np.float32(1.5))
        one = replace(one, input=replace(entry, preamble=(step,)))
    if unusual == "floor":
        one = replace(
            one, input=replace(entry, quantizer=replace(entry.quantizer, rounding="FLOOR"))
        )
    assert_equal(one, "native")
    compiled = NativeNetwork(one, library("native"))
    assert compiled.logits(np.full((1, 4), 81, np.float32)) is None


def test_what_does_not_fit_is_left_to_other_kernels() -> None:
    x = layers.source((4,), 0, 255)
    wide = MatMul(**layers.common((1,), 0, 0), weight=np.full((4, 1), 2**15), weight_bits=17)
    one = network(x, named(layers.with_range(wide, x), "product"))
    with pytest.raises(NotNativeError):
        NativeNetwork(one, library("native"))
    engine = IntegerEngine(one)
    assert engine.few == 0
    images = np.full((1, 4), 20, np.float32)
    assert np.array_equal(engine.predict(images), one.predict(images))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = small_network(tmp_path / "model.onnx")
    native.library()  # before the cache moves: compiled once
    monkeypatch.setenv("DIVQAT_CACHE", str(tmp_path / "cache"))
    return path


def test_few_images_are_computed_by_it(path: Path) -> None:
    engine = IntegerEngine(path)
    assert engine.few >= 1
    for count in (0, 1, engine.few, engine.few + 1, 300):
        images = random_images(count)
        assert np.array_equal(engine.predict(images), engine.network.predict(images))
    images = random_images(3)
    expected = engine.network.run(images)
    for layer in engine.network.layers:
        assert np.array_equal(
            engine.integers(images, [layer.name])[layer.name], expected[layer.output]
        )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.astype(np.float64),
        lambda x: x[:, :, :4],
        lambda x: x * 2,
        lambda x: x * np.float32("nan"),
        lambda x: x - 1,
        lambda x: x.tolist(),
    ],
    ids=["float64", "shape", "high", "NaN", "low", "list"],
)
def test_images_of_another_kind_are_refused_as_ever(path: Path, spoil: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="images"):
        IntegerEngine(path).predict(spoil(random_images(1)))


def test_threads_share_an_engine(path: Path) -> None:
    engine, images = IntegerEngine(path), random_images(200)
    expected = engine.network.predict(images)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda at: engine.predict(images[at : at + 1]), range(200)))
    assert np.array_equal(np.concatenate(rows), expected)


def wrong_weights(compiled: NativeNetwork) -> None:
    """The first weight of the first convolution is another one."""
    array = next(array for array in compiled._arrays if array.dtype == np.int16 and array.ndim == 4)
    array[0, 0, 0, 0] += 1


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that the trial does not show."""
    true_agrees = NativeNetwork.agrees

    def agrees(self: NativeNetwork) -> bool:
        result = true_agrees(self)
        wrong_weights(self)
        return result

    monkeypatch.setattr(NativeNetwork, "agrees", agrees)


@pytest.mark.usefixtures("broken")
def test_the_gate_names_a_wrong_layer_and_others_take_its_place(path: Path) -> None:
    for _ in range(2):  # what failed is no verdict to keep
        with pytest.warns(KernelWarning, match=r"layer 'Conv_0', kernel 'C\+\+'"):
            engine = IntegerEngine(path)
        (difference,) = engine.differences
        assert (difference.layer, difference.kernel) == ("Conv_0", NATIVE)
        assert engine.few == 0
        images = random_images(30)
        expected = engine.network.predict(images)
        assert np.array_equal(engine.predict(images), expected)
        assert np.array_equal(engine.predict(images[:1]), expected[:1])


def test_the_trial_shows_a_wrong_layer(path: Path) -> None:
    compiled = NativeNetwork(lower(path), library("native"))
    wrong_weights(compiled)
    assert not compiled.agrees()


def test_a_file_that_passed_stands_no_second_trial(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = IntegerEngine(path)
    monkeypatch.setattr(NativeNetwork, "agrees", lambda _: pytest.fail("a second trial"))
    monkeypatch.setattr("fpga_flow.integer.trial._agrees", lambda *_: pytest.fail("a trial"))
    second = IntegerEngine(path)
    assert second.kernels == first.kernels
    assert second.few == first.few
    images = random_images(70)
    assert np.array_equal(second.predict(images), first.predict(images))


@pytest.mark.parametrize("lacking", ["compiler", "flags", "folder"])
def test_without_it_other_kernels_compute_few_images(
    lacking: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", native.library.__wrapped__)
    if lacking == "compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif lacking == "flags":
        monkeypatch.setattr(compiling, "COMMAND", ("-std=c++1",))
    else:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("DIVQAT_CACHE", str(tmp_path / "file"))
    engine = IntegerEngine(path)
    assert engine.few == 0
    images = random_images(1)
    assert np.array_equal(engine.predict(images), engine.network.predict(images))
