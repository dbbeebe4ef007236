"""In a notebook any object of ours shows itself in a few lines."""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import divqat_brevitas
import fpga_flow
from divqat_brevitas.data import load, query_pool
from divqat_brevitas.data.registry import resolve as resolve_set
from divqat_brevitas.extraction import KnockoffNets, Victim
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.quant.explain import explain
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow import export_qonnx, load_engine
from fpga_flow.lowering import lower
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.report.schema import Results

GROWS = re.compile(
    r"ndarray|NDArray|Tensor|nn\.Module|modules\.module|\bbytes\b|Network\b|Responses\b"
)


def classes() -> Iterator[type]:
    """Every dataclass of the two packages, by its module's own definition."""
    for package in (divqat_brevitas, fpga_flow):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "__main__" in found.name or found.name.endswith(".run_finn"):
                continue
            module = importlib.import_module(found.name)
            for value in vars(module).values():
                if isinstance(value, type) and value.__module__ == found.name:
                    yield value


def test_every_dataclass_with_arrays_or_models_has_a_short_repr() -> None:
    # By vars(): Brevitas' injectors refuse to be asked for what they have not.
    held = [cls for cls in classes() if "__dataclass_fields__" in vars(cls)]
    assert len(held) > 150
    long = {
        f"{cls.__module__}.{cls.__name__}.{field.name}"
        for cls in held
        for field in dataclasses.fields(cls)
        if field.repr and GROWS.search(str(field.type)) and "Callable" not in str(field.type)
        if not (issubclass(cls, ShortRepr) or cls.__name__.startswith("_"))
    }
    assert sorted(long) == []


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a user of both packages has in hand on the way from a network to a clone."""
    torch.manual_seed(0)
    pixels = load("digits", "train")[0]
    images = pixels[:64].astype(np.float32) / np.float32(255)
    float_model = build_model("digits-cnn", (1, 8, 8), 10)
    model = quantize(float_model, "w4a4")
    model.train()(torch.from_numpy(images))
    model.eval()
    file = tmp_path_factory.mktemp("repr") / "model.onnx"
    report = export_qonnx(model, file, images)
    network = lower(file)
    engine = load_engine(file, engine="integer")
    victim = Victim(engine, oracle="soft", budget=40)
    pool = query_pool("in", "digits", 40, seed=0)
    result = KnockoffNets(surrogate="mlp", seed=0, epochs=1).run(victim, pool.images)
    row = {"variant": "qat", "bits": "w4a4", "seed": 0, "preset": None, "accuracy": 0.5}
    row |= dict.fromkeys(("accuracy_engine", "engine", "ece", "l1_to_reference"))
    dataset = {"name": "digits", "train": 9, "test": 9, "classes": 10, "shape": [1, 8, 8]}
    results = Results.model_validate(
        {
            "schema": 1,
            "dataset": dataset,
            "victims": [row | {"flips_from_reference": None}] * 100,
            **{key: [] for key in ("equivalence", "attacks", "summary", "hardware")},
        }
    )
    config = resolve(preset="demo")
    return [
        *(report, network, *network.layers, network.output, engine, load_engine(file, "qonnx")),
        *(victim, pool, result, *result.rounds, *result.history, KnockoffNets(surrogate="mlp")),
        *(explain(model), *explain(model).layers),
        *(config, config.attack, resolve(), results, results.victims[0]),
        *(resolve_set("cifar100"), resolve_set("cifar100").info, resolve_set("digits").source),
    ]


def test_what_a_user_holds_is_shown_in_a_few_lines(things: list[Any]) -> None:
    for thing in things:
        text = repr(thing)
        assert text.count("\n") < 6, (type(thing), text[:500])
        assert len(text) < 1000, (type(thing), text[:500])
    assert "<int64 " in repr(things[1].layers[-1])
    assert repr(resolve()) == "Config()"


@dataclasses.dataclass(frozen=True)
class Base(ShortRepr):
    name: str
    codes: Any


@dataclasses.dataclass(frozen=True)
class Derived(Base):
    more: Any = ()


def test_values_are_shown_short_and_as_they_are_where_they_are_short() -> None:
    long = Derived("x" * 99, np.zeros((2, 3), np.int8), tuple(range(99)))
    assert (
        repr(long) == f"Derived(name='{'x' * 55}...', codes=<int8 (2, 3)>, more=<tuple of 99 int>)"
    )
    short = Derived("a", 1.5, [None, {"b": Path("c")}, (True,)])
    assert (
        repr(short) == "Derived(name='a', codes=1.5, more=[None, {'b': PosixPath('c')}, (True,)])"
    )
    assert repr(Base("a", torch.nn.Linear(2, 2))) == (
        "Base(name='a', codes=Linear(in_features=2, out_features=2, bias=True))"
    )
    assert (
        repr(Base("a", torch.nn.Sequential(torch.nn.ReLU())))
        == "Base(name='a', codes=<Sequential>)"
    )
