"""Specs, the table, compositions, cost and calibration."""

import json

import numpy as np
import pytest
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TorchPredictor, softmax
from divqat_brevitas.extraction.defences import (
    FAMILIES,
    Composition,
    DefenceMaterial,
    DefendedPredictor,
    LabelOnlyFallback,
    OutOfReachError,
    ReverseSigmoid,
    Rounding,
    Top1,
    TopK,
    at_cost,
    calibrate,
    check_defence_name,
    cost,
    cost_of,
    family,
    make_defence,
    split_target,
)

IMAGES = np.random.default_rng(0).random((150, 1, 8, 8), np.float32)
ROWS = softmax(np.random.default_rng(1).normal(0, 3, (150, 4)))


def linear(classes: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()


@pytest.fixture(scope="module")
def material() -> DefenceMaterial:
    labels = np.arange(150) % 4
    return DefenceMaterial(
        images=IMAGES, labels=labels, models=[linear(), linear()], architecture="mlp", epochs=1
    )


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_keeps_what_its_entry_promises(name: str, material) -> None:
    entry = FAMILIES[name]
    first = make_defence(name, material, seed=1)
    responses = first.perturb(IMAGES, ROWS)
    assert responses.dtype == np.float32
    found = cost_of(make_defence(name, material, seed=1), IMAGES, ROWS)  # checks the rows too
    assert found == cost(ROWS, responses)  # the same seed, the same responses
    if entry.keeps_label:
        assert found.labels_changed == 0
    again = first.perturb(IMAGES, ROWS)
    assert np.array_equal(responses, again) is entry.deterministic
    assert check_defence_name(first.name) == first.name
    # The name is a spec that makes the same defence.
    twin = make_defence(first.name, material, seed=1)
    assert (twin.name, twin.settings) == (first.name, first.settings)
    json.dumps(first.settings)


def test_specs() -> None:
    for spec in ("none", "top1", "topk:3", "rounding:1", "noise:0.1", "mad:0.5", "mad-argmax:1"):
        assert make_defence(spec).name == spec
    assert make_defence("reverse-sigmoid:0.5:0.1").settings == {"beta": 0.5, "gamma": 0.1}
    assert make_defence("reverse-sigmoid:0.5:0.1").name == "reverse-sigmoid:0.5:0.1"
    assert make_defence("reverse-sigmoid").name == "reverse-sigmoid:0.5"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("reverse-sigmod:0.5", "did you mean 'reverse-sigmoid'"),
        ("top1:3", "takes none"),
        ("noise:a", "such as 'noise:0.2'"),
        ("noise:inf", "finite"),
        ("rounding:1.5", "whole number"),
        ("noise:-1", "from 0 to 10"),
        ("top1+", "unknown defence"),
        ("", "unknown defence"),
        ("misinformation:0.9", "DefenceMaterial"),
        ("grad2:0.5", "DefenceMaterial"),
        ("ensemble", "at least one network"),
        ("ensemble:3", "2 models besides the victim's"),
    ],
)
def test_bad_specs_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_defence(spec)


def test_a_composition_is_its_parts_in_order() -> None:
    parts = [ReverseSigmoid(0.5), TopK(2)]
    both = Composition(parts)
    expected = TopK(2).perturb(IMAGES, ReverseSigmoid(0.5).perturb(IMAGES, ROWS))
    assert np.array_equal(both.perturb(IMAGES, ROWS), expected)
    assert both.name == "reverse-sigmoid:0.5+topk:2"
    assert make_defence(both.name).settings == both.settings
    assert not np.array_equal(expected, Composition(parts[::-1]).perturb(IMAGES, ROWS))

    class Half(Top1):
        name = "half"

        def perturb(self, images: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
            return probabilities / 2

    with pytest.raises(InputError, match="'half' must be rows of sum 1"):
        Composition([Half(), Top1()]).perturb(IMAGES, ROWS)


def test_a_defended_predictor_answers_with_the_defended_probabilities() -> None:
    model = linear()
    logits = TorchPredictor(model).predict(IMAGES)
    defended = DefendedPredictor(model, ReverseSigmoid(0.5)).predict(IMAGES)
    expected = ReverseSigmoid(0.5).perturb(IMAGES, softmax(logits))
    np.testing.assert_allclose(softmax(defended), expected, rtol=1e-6, atol=0)
    one_hot = softmax(DefendedPredictor(model, Top1()).predict(IMAGES))
    assert set(np.unique(one_hot)) == {0.0, 1.0}  # a zero stays exactly zero
    undefended = DefendedPredictor(model, make_defence("none"))
    assert np.array_equal(undefended.predict(IMAGES), logits)


def test_cost() -> None:
    before = np.float32([[0.6, 0.4], [0.9, 0.1]])
    after = np.float32([[0.4, 0.6], [0.8, 0.2]])
    found = cost(before, after)
    assert found.l1 == pytest.approx(0.3, abs=1e-6)
    assert found.labels_changed == 0.5
    with pytest.raises(InputError, match="same images"):
        cost(before, after[:1])


@pytest.mark.parametrize(
    "name", ["noise", "reverse-sigmoid", "misinformation", "mad", "mad-argmax", "grad2"]
)
def test_calibration_finds_the_strength_of_a_given_cost(name: str, material) -> None:
    make = family(name, material, seed=1)
    found = calibrate(make, ROWS, IMAGES, 0.2, between=FAMILIES[name].strengths or (0, 1))
    assert found.cost.l1 == pytest.approx(0.2, rel=0.02)
    assert cost_of(make(found.strength), IMAGES, ROWS) == found.cost


def test_calibration_says_when_a_cost_is_out_of_reach() -> None:
    with pytest.raises(InputError, match="out of reach"):
        calibrate(ReverseSigmoid, ROWS, IMAGES, 1.9)
    with pytest.raises(InputError, match="no continuous strength"):
        family("rounding")
    with pytest.raises(InputError, match="target in"):
        calibrate(ReverseSigmoid, ROWS, IMAGES, 0)

    # A cost that jumps over the target.
    def step(strength: float) -> Top1 | Rounding:
        return Top1() if strength > 0.5 else Rounding(9)

    with pytest.raises(InputError, match="no strength has"):
        calibrate(step, ROWS, IMAGES, 0.05)


BLANK = np.random.default_rng(0).random((200, 1, 8, 8), np.float32)
SURE, UNSURE = (softmax(np.random.default_rng(1).normal(0, s, (200, 4))) for s in (6, 1))
MATERIAL = DefenceMaterial(architecture="mlp")


@pytest.mark.parametrize("family", ["reverse-sigmoid", "dcp", "noise", "mad", "mad-argmax"])
def test_the_same_cost_before_networks_of_other_answers(family: str) -> None:
    spec = f"{family}@0.2"
    found = [at_cost(spec, rows, BLANK, MATERIAL, seed=3) for rows in (SURE, UNSURE)]
    for one, rows in zip(found, (SURE, UNSURE), strict=True):
        assert (one.target, one.shortfall) == (0.2, "")
        assert one.cost.l1 == pytest.approx(0.2, rel=0.02)  # calibrate's default tolerance
        # The spec found makes exactly the defence whose cost was measured.
        made = make_defence(one.spec, MATERIAL, seed=3)
        assert made.name == one.spec
        assert cost_of(made, BLANK, rows) == one.cost
    if not family.startswith("mad"):
        assert found[0].strength != found[1].strength
    assert at_cost(spec, SURE, BLANK, MATERIAL, seed=3) == found[0]


def test_behind_a_gate_the_cost_is_on_top_of_the_gate() -> None:
    found = at_cost("gate:0:0.05+reverse-sigmoid@0.2", UNSURE, BLANK)
    gated = LabelOnlyFallback(0, 0.05).perturb(BLANK, UNSURE)
    last = make_defence(found.spec.removeprefix("gate:0:0.05+"))
    assert cost_of(last, BLANK, gated) == found.cost
    assert found.cost.l1 == pytest.approx(0.2, rel=0.02)
    assert found.strength != at_cost("reverse-sigmoid@0.2", UNSURE, BLANK).strength
    both = make_defence(found.spec).perturb(BLANK, UNSURE)
    assert np.array_equal(both, last.perturb(BLANK, gated))


def test_what_cannot_be_reached_is_said_and_the_strongest_used() -> None:
    found = at_cost("reverse-sigmoid@1.99", SURE, BLANK)
    most = cost_of(ReverseSigmoid(5), BLANK, SURE)
    assert (found.spec, found.cost) == ("reverse-sigmoid:5", most)
    assert found.target == 1.99
    assert "1.99 is out of reach" in found.shortfall
    assert f"Used instead: 'reverse-sigmoid:5', with {most.l1:.4g}" in found.shortfall


def test_calibration_names_the_strength_to_fall_back_on() -> None:
    with pytest.raises(OutOfReachError) as low:
        calibrate(ReverseSigmoid, SURE, BLANK, 0.01, between=(1, 2))
    assert low.value.nearest.strength == 1
    with pytest.raises(OutOfReachError) as jump:
        calibrate(lambda s: Top1() if s > 0.5 else Rounding(9), UNSURE, BLANK, 0.05)
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
        at_cost("dcp:0.7", SURE, BLANK)
