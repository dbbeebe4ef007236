"""Results say what an attack met and what its learner found."""

import json

import numpy as np

from divqat_brevitas.extraction import KnockoffNets, PlainLearner, Victim
from divqat_brevitas.extraction.learners import make_learner


def test_the_defences_numbers_and_the_learners_findings_are_kept(digits) -> None:
    victim = Victim(digits.model, budget=120, defence="reverse-sigmoid:0.5")
    learner = make_learner("filtered", surrogate="mlp", epochs=2)
    result = KnockoffNets(learner=learner, seed=1).run(victim, digits.pool)
    assert result.settings["defence"] == victim.defence
    assert result.settings["defence_settings"] == victim.defence_settings
    assert result.settings["defence_settings"]
    notes = result.settings["learner"]["notes"]
    assert notes["responses"] == 120
    assert 0 <= notes["ood_targets"] <= 120
    json.dumps(result.settings, allow_nan=False)


def test_nothing_found_leaves_no_notes(digits) -> None:
    learner = PlainLearner(surrogate="mlp", epochs=1)
    result = KnockoffNets(learner=learner, seed=1).run(Victim(digits.model, budget=40), digits.pool)
    assert "notes" not in result.settings["learner"]
    assert result.settings["defence_settings"] == {}
    assert np.isfinite(result.history[-1]["loss"])
