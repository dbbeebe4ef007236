"""Defences of equal cost: a spec that names a mean ℓ1 distance, and the strength found for it."""

import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import softmax
from divqat_brevitas.extraction.defences import (
    DefenceMaterial,
    LabelOnlyFallback,
    OutOfReachError,
    ReverseSigmoid,
    Rounding,
    Top1,
    at_cost,
    calibrate,
    check_defence_name,
    cost_of,
    make_defence,
    split_target,
)

IMAGES = np.random.default_rng(0).random((200, 1, 8, 8), np.float32)
SURE, UNSURE = (softmax(np.random.default_rng(1).normal(0, s, (200, 4))) for s in (6, 1))
MATERIAL = DefenceMaterial(architecture="mlp")


@pytest.mark.parametrize("family", ["reverse-sigmoid", "dcp", "noise", "mad", "mad-argmax"])
def test_the_same_cost_before_networks_of_other_answers(family: str) -> None:
    spec = f"{family}@0.2"
    found = [at_cost(spec, rows, IMAGES, MATERIAL, seed=3) for rows in (SURE, UNSURE)]
    for one, rows in zip(found, (SURE, UNSURE), strict=True):
        assert (one.target, one.shortfall) == (0.2, "")
        assert one.cost.l1 == pytest.approx(0.2, rel=0.02)  # calibrate's default tolerance
        # The spec found makes exactly the defence whose cost was measured.
        made = make_defence(one.spec, MATERIAL, seed=3)
        assert made.name == one.spec
        assert cost_of(made, IMAGES, rows) == one.cost
    if not family.startswith("mad"):
        assert found[0].strength != found[1].strength
    assert at_cost(spec, SURE, IMAGES, MATERIAL, seed=3) == found[0]


def test_behind_a_gate_the_cost_is_on_top_of_the_gate() -> None:
    found = at_cost("gate:0:0.05+reverse-sigmoid@0.2", UNSURE, IMAGES)
    gated = LabelOnlyFallback(0, 0.05).perturb(IMAGES, UNSURE)
    last = make_defence(found.spec.removeprefix("gate:0:0.05+"))
    assert cost_of(last, IMAGES, gated) == found.cost
    assert found.cost.l1 == pytest.approx(0.2, rel=0.02)
    assert found.strength != at_cost("reverse-sigmoid@0.2", UNSURE, IMAGES).strength
    both = make_defence(found.spec).perturb(IMAGES, UNSURE)
    assert np.array_equal(both, last.perturb(IMAGES, gated))


def test_what_cannot_be_reached_is_said_and_the_strongest_used() -> None:
    found = at_cost("reverse-sigmoid@1.99", SURE, IMAGES)
    most = cost_of(ReverseSigmoid(5), IMAGES, SURE)
    assert (found.spec, found.cost) == ("reverse-sigmoid:5", most)
    assert found.target == 1.99
    assert "1.99 is out of reach" in found.shortfall
    assert f"Used instead: 'reverse-sigmoid:5', with {most.l1:.4g}" in found.shortfall


def test_calibration_names_the_strength_to_fall_back_on() -> None:
    with pytest.raises(OutOfReachError) as low:
        calibrate(ReverseSigmoid, SURE, IMAGES, 0.01, between=(1, 2))
    assert low.value.nearest.strength == 1
    with pytest.raises(OutOfReachError) as jump:
        calibrate(lambda s: Top1() if s > 0.5 else Rounding(9), UNSURE, IMAGES, 0.05)
    assert jump.value.nearest.strength == pytest.approx(0.5)
    assert jump.value.nearest.cost.l1 < 0.05


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rounding@0.2", "no continuous strength"),
        ("nois@0.2", "did you mean 'noise'"),
        ("noise@much", "not 'much'"),
        ("noise@0", "above 0"),
        ("noise@2.5", "up to 2"),
        ("noise@nan", "not 'nan'"),
        ("noise:0.2@0.2", "in place of its numbers"),
        ("noise@0.2:1", "in place of its numbers"),
        ("noise@0.2+rounding:1", "behind the last part only"),
        ("noise@0.2+dcp@0.2", "behind the last part only"),
    ],
)
def test_bad_costs_are_refused(spec: str, says: str) -> None:
    for check in (split_target, check_defence_name, make_defence):
        with pytest.raises(InputError, match=says):
            check(spec)


def test_a_cost_is_a_name_in_results_but_no_defence_yet() -> None:
    assert check_defence_name("gate:0:0.05+dcp@0.2") == "gate:0:0.05+dcp@0.2"
    with pytest.raises(InputError, match=r"with divqat_brevitas\.extraction\.defences\.at_cost"):
        make_defence("dcp@0.2")
    with pytest.raises(InputError, match="names no cost"):
        at_cost("dcp:0.7", SURE, IMAGES)
