"""A run's attack stage trains no clone twice, and its rows are the same as if it did."""

import pytest
from small_attack import attack_rows

from divqat_brevitas.extraction.learners import base


def execute(path, *overrides):
    rows = attack_rows(path, "attack.epochs=2", *overrides)
    return {(row["oracle"], row["treatment"]): row for row in rows}


@pytest.mark.slow  # runs whole stages
def test_labels_and_the_argmax_of_soft_answers_train_one_clone(tmp_path, monkeypatch):
    train, trained = base.train_surrogate, []
    monkeypatch.setattr(
        base, "train_surrogate", lambda *a, **k: trained.append(a) or train(*a, **k)
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
