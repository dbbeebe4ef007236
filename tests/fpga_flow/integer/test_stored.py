"""Lowered networks that are kept: the same network, of the same content only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_models import random_images, small_network

from fpga_flow.integer import stored
from fpga_flow.integer.engine import IntegerEngine
from fpga_flow.integer.gate import cache_folder
from fpga_flow.lowering import Network, lower
from fpga_flow.lowering.inputs import FloatStep
from fpga_flow.lowering.ir import Concat, Layer


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIVQAT_CACHE", str(tmp_path / "cache"))
    return small_network(tmp_path / "model.onnx")


def assert_same(one: Network, other: Network) -> None:
    arrays: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    first, second = map(stored._encoded, (one, other), arrays)
    assert first == second
    for a, b in zip(*(found.values() for found in arrays), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.array_equal(a, b)


def test_a_file_is_lowered_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stored.lowered(path)
    assert_same(first, lower(path))
    with monkeypatch.context() as patch:
        patch.setattr(stored, "lower", lambda _: pytest.fail("lowered again"))
        second = stored.lowered(path)
    assert_same(second, first)
    assert not any(layer.low.flags.writeable for layer in second.layers)
    images = random_images(5)
    assert np.array_equal(second.predict(images), first.predict(images))


def test_every_layer_can_be_kept(path: Path, tmp_path: Path) -> None:
    assert {one.__name__ for one in Layer.__subclasses__()} <= set(stored._CLASSES)
    network = lower(path)
    step = FloatStep("Mul", (1, 8, 8), np.float32(2) * np.ones((), np.float32), True, ((0, 1),))
    conv = network.layers[0]
    common = {
        name: getattr(conv, name)
        for name in ("source", "inputs", "output", "shape", "scale", "bias", "low", "high", "bits")
    }
    joined = Concat(name="joined", shifts=np.arange(6), mirrored=False, **common)
    network = replace(
        network,
        input=replace(network.input, preamble=(step,)),
        layers=(*network.layers, joined),
    )
    stored._write(network, tmp_path / "kept.safetensors")
    assert_same(stored._read(tmp_path / "kept.safetensors"), network)


@pytest.mark.parametrize("damage", [b"", b"\x08" + b"\0" * 20, b"{}"])
def test_what_is_damaged_is_lowered_again(path: Path, damage: bytes) -> None:
    stored.lowered(path)
    (kept,) = cache_folder().glob("*.safetensors")
    kept.write_bytes(damage)
    assert_same(stored.lowered(path), lower(path))
    assert kept.stat().st_size > 1000


def test_tensors_outside_the_file_are_read_each_time(path: Path) -> None:
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="data", size_threshold=1000)
    images = random_images(3)
    before = IntegerEngine(path).predict(images)
    weights = path.with_name("data")  # of the linear layer
    values = np.fromfile(weights, np.float32)
    (values * np.float32(-1)).tofile(weights)
    assert not np.array_equal(IntegerEngine(path).predict(images), before)
    assert not list(cache_folder().glob("*.safetensors"))
