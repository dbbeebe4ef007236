"""Engines behind an answer unit: codes out, and what a host makes of them."""

from pathlib import Path

import numpy as np
import pytest
from engine_models import random_images, small_network

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Victim
from fpga_flow.engines import load_engine
from fpga_flow.engines.answering import answer_unit
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.lowering import lower
from fpga_flow.lowering.answer import MASKED, make_answer

ALL = ["top1", "topk:2", "rounded:3", "posterior:2", "gated:1:3", "reject:keyed"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_network(tmp_path_factory.mktemp("answering") / "model.onnx")


@pytest.mark.slow  # simulates generated hardware
@pytest.mark.parametrize("name", ALL)
def test_every_engine_gives_the_codes_of_the_definition(path: Path, name: str) -> None:
    images, calibration = random_images(60, seed=1), random_images(80, seed=2)
    network = lower(path)
    output = network.output
    sums, seen = (network.run(x)[output.tensor].reshape(-1, 5) for x in (images, calibration))
    unit = make_answer(name, output.scale.tolist(), output.bias.tolist(), seen)
    expected = unit.codes(sums)
    assert len(np.unique(expected)) > 1
    for kind in ("integer", "qonnx"):
        engine = load_engine(path, kind, answer=name, calibration=calibration)
        assert engine.name == kind
        answers = engine.answers(images)
        assert answers.dtype == np.int64
        assert np.array_equal(answers, expected)
        assert np.array_equal(engine.rejected(images), unit.rejected(sums))
        logits = engine.predict(images)
        assert (logits.dtype, logits.shape) == (np.float32, (60, unit.classes))
        assert np.array_equal(logits, unit.logits(expected))
        assert engine.answers(images[:0]).shape == (0, expected.shape[1])
    assert np.array_equal(load_engine(path, answer=unit).answers(images), expected)


def test_labels_are_those_of_the_logits_and_victims_work_unchanged(path: Path) -> None:
    images = random_images(200, seed=3)
    engine = load_engine(path, answer="top1")
    labels = load_engine(path).predict(images).argmax(axis=1)
    assert np.array_equal(engine.answers(images)[:, 0], labels)
    soft = Victim(engine, oracle="soft", budget=200).query(images)
    assert np.array_equal(soft, np.eye(5, dtype=np.float32)[labels])
    kept = load_engine(path, answer="topk:2", calibration=random_images(50)).predict(images)
    assert np.array_equal((kept > MASKED).sum(axis=1), np.full(200, 2))


def test_without_an_answer_nothing_changes(path: Path) -> None:
    assert type(load_engine(path)).__name__ == "IntegerEngine"
    assert type(load_engine(path, "qonnx")).__name__ == "QonnxEngine"


def test_refusals(path: Path) -> None:
    with pytest.raises(InputError, match="unknown answer 'round': did you mean 'rounded'"):
        load_engine(path, answer="round:3")
    with pytest.raises(InputError, match="needs calibration images"):
        load_engine(path, answer="rounded:3")
    with pytest.raises(InputError, match="is a folder"):
        load_engine(path.parent, "rtl", answer="top1")
    with pytest.raises(InputError, match=r"AnswerUnit|more classes than the 5"):
        answer_unit(path, "topk:6", random_images(4))


@pytest.mark.slow
@pytest.mark.finn
def test_generated_hardware_gives_the_same_codes(path: Path) -> None:
    name = "posterior:3"
    images, calibration = random_images(40, seed=4), random_images(80, seed=2)
    software = load_engine(path, answer=name, calibration=calibration)
    engine = load_engine(path, "rtl", answer=name, calibration=calibration)
    assert isinstance(engine, RtlEngine)
    with engine as hardware:
        assert np.array_equal(hardware.answers(images), software.answers(images))
        assert np.array_equal(hardware.predict(images), software.predict(images))
        with pytest.raises(InputError, match=r"gives (labels|codes).*no accumulators"):
            hardware.accumulators(images)
        folder = hardware.design.folder
        assert load_engine(folder, "rtl", answer=hardware.design.unit).name == "rtl"
        other = answer_unit(path, "rounded:1", calibration)
        with pytest.raises(InputError, match=r"not the rounded:1 that was asked for"):
            load_engine(folder, "rtl", answer=other)
