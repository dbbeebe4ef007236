"""A run's attack stage trains no clone twice, and its rows are the same as if it did."""

from dataclasses import replace

from fakes import Silent

from divqat_brevitas.extraction import learner
from divqat_brevitas.files import read_json
from fpga_flow import pipeline
from fpga_flow.rundir import RunDirectory
from fpga_flow.settings import resolve
from fpga_flow.stages import order

SETTINGS = [
    "data.name=digits",
    "model.name=mlp",
    "train.variants=qat",
    "train.float_epochs=1",
    "train.quant_epochs=1",
    "attack.budgets=40",
    "attack.surrogates=mlp",
    "attack.epochs=2",
]
STAGES = [*order.STAGES[:2], replace(order.STAGES[4], uses=())]


def execute(path, *overrides):
    config = resolve(overrides=[*SETTINGS, *overrides])
    pipeline.execute(RunDirectory(path), config, STAGES, progress=Silent())
    rows = [read_json(file) for file in (path / "attack").glob("*.json")]
    return {(row["oracle"], row["treatment"]): row for row in rows}


def test_labels_and_the_argmax_of_soft_answers_train_one_clone(tmp_path, monkeypatch):
    train, trained = learner.train_surrogate, []
    monkeypatch.setattr(
        learner, "train_surrogate", lambda *a, **k: trained.append(a) or train(*a, **k)
    )
    both = execute(tmp_path / "both", "attack.oracles=soft,top1", "attack.learners=soft,argmax")
    assert set(both) == {("soft", "soft"), ("soft", "argmax"), ("top1", "soft")}
    assert len(trained) == 2
    alone = execute(tmp_path / "alone", "attack.oracles=top1", "attack.learners=soft")
    assert len(trained) == 3
    assert alone["top1", "soft"] == both["top1", "soft"]
    measured = ("clone_accuracy", "agreement", "confusion")
    labels, argmax = both["top1", "soft"], both["soft", "argmax"]
    assert {name: labels[name] for name in measured} == {name: argmax[name] for name in measured}
