"""A run's attack stage asks what the chip answers, not what the network knows."""

from dataclasses import replace

import numpy as np
import pytest
import small_attack
from fakes import Silent

from divqat_brevitas.files import read_json
from fpga_flow.engines import load_engine
from fpga_flow.pipeline import run as pipeline
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import attack, order
from fpga_flow.pipeline.stages.victims import split

SETTINGS = [*small_attack.SETTINGS, "run.seeds=0,3", "train.variants=float,qat"]
STAGES = [*order.STAGES[:2], replace(order.STAGES[4], uses=())]
GATED = "compile.answer=gated:0:4"


def execute(path, *overrides):
    config = resolve(overrides=[*SETTINGS, *overrides])
    pipeline.execute(RunDirectory(path), config, STAGES, progress=Silent())
    return {file.name: read_json(file) for file in (path / "attack").glob("*.json")}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.mark.slow  # runs whole stages
def test_attackers_get_what_leaves_the_chip(path, monkeypatch):
    plain = execute(path)
    assert len(plain) == 4
    assert not any("answer" in row or "gated" in name for name, row in plain.items())
    asked = []
    run_attack = attack.attack_spec.run_attack
    monkeypatch.setattr(
        attack.attack_spec,
        "run_attack",
        lambda how, model, *a, **k: asked.append((how, model)) or run_attack(how, model, *a, **k),
    )
    gated = execute(path, GATED)
    # The float victim has no chip: its cells were not even run again.
    assert {name: row for name, row in gated.items() if row["victim"] == "float"} == {
        name: row for name, row in plain.items() if row["victim"] == "float"
    }
    assert len(asked) == 2
    changed = {name: row for name, row in gated.items() if row["victim"] == "qat"}
    assert all(row["answer"] == "gated:0:4" and "gated" in name for name, row in changed.items())
    config = resolve(overrides=[*SETTINGS, GATED])
    train, test = (split(config, name)[0] for name in ("train", "test"))
    for (how, model), stem in zip(asked, ("qat", "qat-seed3"), strict=True):
        assert how.answer == "gated:0:4"
        file = path / f"export/{stem}.onnx"
        expected = load_engine(file, answer="gated:0:4", calibration=train[:1000]).predict(test)
        assert np.array_equal(model.predict(test), expected)
        assert len(np.unique(expected)) <= 17
    # Taken back: the first rows again, to the bit.
    assert execute(path) == plain


def test_only_victims_that_get_a_chip_have_its_answer():
    two = ["train.variants=ptq,qat", "compile.variants=ptq"]
    config = resolve(overrides=[*SETTINGS, GATED, *two])
    found = {cell.victim.variant: cell.spec.answer for cell in attack.attacks(config)}
    assert found == {"ptq": "gated:0:4", "qat": "logits"}
    config = resolve(overrides=[*SETTINGS, GATED])
    found = {cell.victim.variant: cell.spec.answer for cell in attack.attacks(config)}
    assert found == {"float": "logits", "qat": "gated:0:4"}
    without = attack.attacks(resolve(overrides=SETTINGS))
    assert {cell.spec.answer for cell in without} == {"logits"}
