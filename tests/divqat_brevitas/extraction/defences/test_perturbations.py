"""Truncation, noise and Reverse Sigmoid, against the formulas and against ART."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import TorchPredictor, make_oracle, softmax
from divqat_brevitas.extraction.defences import (
    DCP,
    GaussianNoise,
    LabelOnlyFallback,
    ReverseSigmoid,
    Rounding,
    Top1,
    TopK,
    cost_of,
)
from divqat_brevitas.extraction.defences.base import check_perturbed, distributions
from divqat_brevitas.extraction.defences.owner import Defender

# Rows of float64, and what the post-processors of the Adversarial Robustness Toolbox 1.20.1
# (art.defences.postprocessor) make of them.
ROWS = np.array(
    [
        [0.90, 0.05, 0.03, 0.02],
        [0.40, 0.30, 0.20, 0.10],
        [1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 0.0],
        [0.999, 0.0005, 0.0003, 0.0002],
    ]
)
ART_REVERSE_SIGMOID = {
    (0.3, 0.2): [
        [0.777224196, 0.083256019, 0.071793474, 0.06772631],
        [0.378854879, 0.291716935, 0.205868888, 0.123559299],
        [0.662214993, 0.112595002, 0.112595002, 0.112595002],
        [0.387404998, 0.387404998, 0.112595002, 0.112595002],
        [0.75098349, 0.079840396, 0.083282894, 0.08589322],
    ],
    (1.0, 0.1): [
        [0.704116335, 0.102527334, 0.096658209, 0.096698122],
        [0.365990339, 0.286600678, 0.209350583, 0.1380584],
        [0.344419406, 0.218526865, 0.218526865, 0.218526865],
        [0.281473135, 0.281473135, 0.218526865, 0.218526865],
        [0.591316974, 0.129115839, 0.136776712, 0.142790475],
    ],
}
# GaussianNoise(scale=0.2) after np.random.seed(0), and the noise it drew.
NOISE = [
    [0.352810469, 0.080031442, 0.195747597, 0.44817864],
    [0.373511598, -0.195455576, 0.190017684, -0.030271442],
    [-0.02064377, 0.0821197, 0.028808714, 0.290854701],
    [0.152207545, 0.024335003, 0.088772647, 0.066734865],
    [0.298815815, -0.041031653, 0.06261354, -0.170819148],
]
ART_NOISE = [
    [0.603250041, 0.062612402, 0.108701396, 0.225436162],
    [0.578195761, 0.078146395, 0.291536122, 0.052121722],
    [0.709092991, 0.05945794, 0.020858659, 0.21059041],
    [0.489626903, 0.393630104, 0.066643626, 0.050099367],
    [0.953764839, 0.0, 0.046235161, 0.0],
]
ART_ROUNDED = {
    2: [
        [0.9, 0.05, 0.03, 0.02],
        [0.4, 0.3, 0.2, 0.1],
        [1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
    ],
    1: [
        [0.9, 0.0, 0.0, 0.0],
        [0.4, 0.3, 0.2, 0.1],
        [1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
    ],
}
# Inputs and responses are float32, and the constants have nine decimals.
CLOSE = {"rtol": 0, "atol": 3e-7}


def images_for(rows: np.ndarray) -> np.ndarray:
    return np.zeros((len(rows), 1, 8, 8), np.float32)


def perturb(defence, rows: np.ndarray) -> np.ndarray:
    return defence.perturb(images_for(rows), rows.astype(np.float32))


def random_rows(count: int = 200, classes: int = 10, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 4, (count, classes))
    return softmax(logits)


@pytest.mark.parametrize(("beta", "gamma"), list(ART_REVERSE_SIGMOID))
def test_reverse_sigmoid_is_arts(beta: float, gamma: float) -> None:
    responses = perturb(ReverseSigmoid(beta, gamma), ROWS)
    np.testing.assert_allclose(responses, ART_REVERSE_SIGMOID[beta, gamma], **CLOSE)


def test_gaussian_noise_is_arts_given_its_noise(monkeypatch) -> None:
    defence = GaussianNoise(0.2)

    class Drawn:
        def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
            assert shape == (5, 4)
            return np.array(NOISE) / 0.2

    monkeypatch.setattr(defence, "_rng", Drawn())
    np.testing.assert_allclose(perturb(defence, ROWS), ART_NOISE, **CLOSE)


@pytest.mark.parametrize("decimals", [1, 2])
def test_rounding_is_arts_with_rows_of_sum_1(decimals: int) -> None:
    expected = np.array(ART_ROUNDED[decimals])
    expected /= expected.sum(axis=1, keepdims=True)
    # Row 0 has 0.05, a tie in ART's float64 and just above one as float32.
    rows = slice(1, None) if decimals == 1 else slice(None)
    np.testing.assert_allclose(perturb(Rounding(decimals), ROWS[rows]), expected[rows], **CLOSE)


def test_reverse_sigmoid_perturbs_the_top_class() -> None:
    # Copies that clip the odds y / (1 - y) at 1 have r = 0 there.
    confident = np.array([[0.96, 0.02, 0.01, 0.01]])
    for defence in (ReverseSigmoid(0.3, 0.2), DCP(0.99, 0.2)):
        r = defence.beta * (1 / (1 + 24.0**-0.2) - 0.5)  # odds of 0.96
        others = [
            y - defence.beta * (1 / (1 + (y / (1 - y)) ** -0.2) - 0.5) for y in (0.02, 0.01, 0.01)
        ]
        expected = (0.96 - r) / (0.96 - r + sum(others))
        assert r > 0.04
        np.testing.assert_allclose(perturb(defence, confident)[0, 0], expected, **CLOSE)


def test_dcp_leaves_sure_answers_alone_and_treats_others_as_reverse_sigmoid() -> None:
    sure, unsure = ROWS[:1], ROWS[1:2]
    assert np.array_equal(perturb(DCP(0.7), sure), sure.astype(np.float32))
    np.testing.assert_allclose(
        perturb(DCP(0.7), unsure), perturb(ReverseSigmoid(0.7), unsure), **CLOSE
    )
    # At the threshold itself the gate is half open.
    at = np.array([[0.75, 0.25]])
    middle = perturb(DCP(0.75), at) - at
    full = perturb(ReverseSigmoid(0.75), at) - at
    np.testing.assert_allclose(middle, full / 2, **CLOSE)


@pytest.mark.parametrize(
    ("defence", "oracle", "options"),
    [(Top1(), "top1", {}), (TopK(3), "topk", {"k": 3}), (Rounding(2), "rounded", {"decimals": 2})],
)
def test_truncations_are_the_oracles_with_rows_of_sum_1(defence, oracle, options) -> None:
    logits = np.random.default_rng(1).normal(0, 2, (50, 10)).astype(np.float32)
    expected = make_oracle(oracle, **options)(logits).astype(np.float64)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(perturb(defence, softmax(logits)), expected, **CLOSE)


def test_a_row_without_mass_says_nothing() -> None:
    assert np.array_equal(perturb(Rounding(0), np.array([[0.5, 0.5]])), [[0.5, 0.5]])
    assert np.array_equal(distributions(np.array([[-1.0, -2.0]])), [[0.5, 0.5]])


def test_noise_is_repeatable_and_fresh() -> None:
    rows = random_rows()
    once, again = GaussianNoise(0.1, seed=3), GaussianNoise(0.1, seed=3)
    first = perturb(once, rows)
    assert np.array_equal(first, perturb(again, rows))
    assert not np.array_equal(first, perturb(once, rows))
    assert not np.array_equal(first, perturb(GaussianNoise(0.1, seed=4), rows))
    # How the queries are cut into batches does not matter.
    cut = GaussianNoise(0.1, seed=3)
    assert np.array_equal(first, np.concatenate([perturb(cut, rows[:7]), perturb(cut, rows[7:])]))


@given(
    arrays(np.float32, (4, 5), elements=st.floats(-200, 200, width=32, allow_subnormal=False)),
    st.floats(0, 20),
)
def test_answers_are_always_distributions(logits: np.ndarray, strength: float) -> None:
    rows = softmax(logits)
    for defence in (
        Top1(),
        TopK(2),
        Rounding(1),
        GaussianNoise(min(strength, 10)),
        ReverseSigmoid(strength),
        DCP(strength),
    ):
        before = rows.copy()
        responses = check_perturbed(defence, rows, perturb(defence, rows))
        assert responses.dtype == np.float32
        assert np.array_equal(rows, before)
        json.dumps(defence.settings)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ([[0.5, 0.5, 0.0]], "shape"),
        ([[1, 0]], "int64"),
        ([[np.nan, 1.0]], "finite"),
        ([[-0.1, 1.1]], "not negative"),
        ([[0.5, 0.4]], "off by 0.1"),
    ],
)
def test_answers_that_are_no_distribution_are_refused(after: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_perturbed(Top1(), np.float32([[0.5, 0.5]]), np.array(after))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TopK(0),
        lambda: TopK(True),
        lambda: Rounding(10),
        lambda: GaussianNoise(-0.1),
        lambda: GaussianNoise(float("nan")),
        lambda: ReverseSigmoid(-1),
        lambda: ReverseSigmoid(1, 11),
        lambda: DCP("0.7"),
    ],
)
def test_bad_parameters_are_refused(make) -> None:
    with pytest.raises(InputError, match="must be a"):
        make()


IMAGES = np.zeros((200, 1, 8, 8), np.float32)
ROWS_LABEL_ONLY = np.random.default_rng(0).dirichlet(np.full(5, 0.5), 200).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.01, 0.2, 1.0])
def test_gated_rows_show_the_label_and_others_are_untouched(threshold: float) -> None:
    responses = LabelOnlyFallback(3, threshold).perturb(IMAGES, ROWS_LABEL_ONLY)
    in_play = (ROWS_LABEL_ONLY.argmax(1) == 3) | (ROWS_LABEL_ONLY[:, 3] >= np.float32(threshold))
    assert 0 < in_play.sum() < 200
    assert np.array_equal(responses[in_play], Top1().perturb(IMAGES, ROWS_LABEL_ONLY)[in_play])
    assert np.array_equal(responses[~in_play], ROWS_LABEL_ONLY[~in_play])
    assert np.array_equal(responses.argmax(1), ROWS_LABEL_ONLY.argmax(1))


@pytest.mark.parametrize("arguments", [(-1, 0.1), (0.5, 0.1), (0, 0.0), (0, 1.1)])
def test_refuses(arguments: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="gate"):
        LabelOnlyFallback(*arguments)


def test_refuses_a_class_that_is_not_there() -> None:
    with pytest.raises(InputError, match="0 to 4 only"):
        LabelOnlyFallback(5).perturb(IMAGES, ROWS_LABEL_ONLY)


# A victim's owner finds the strength of its defences on its own validation images.
DRAWN = np.random.default_rng(0).integers(0, 256, (1200, 1, 8, 8), np.uint8)


def network(seed: int, factor: float) -> TorchPredictor:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.copy_(factor * torch.randn(4, 64, generator=generator))
        layer.bias.zero_()
    return TorchPredictor(nn.Sequential(nn.Flatten(), layer).eval())


class Counted:
    """A predictor that counts the calls."""

    def __init__(self, predictor: TorchPredictor) -> None:
        self.predictor, self.calls = predictor, 0

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self.predictor.predict(images)


def defender(folder: Path | None = None, **changed: object) -> Defender:
    given = {"data": lambda: (DRAWN, np.arange(len(DRAWN)) % 4), "classes": 4, "seed": 1}
    return Defender(**given | {"folder": folder, "validation": lambda: DRAWN} | changed)


def test_each_victim_gets_a_strength_of_its_own_at_one_cost() -> None:
    owner, victims = defender(), [network(0, 0.2), network(1, 2.0)]
    found = [owner.at_cost("reverse-sigmoid@0.2", 0, victim) for victim in victims]
    assert found[0].strength != found[1].strength
    images = DRAWN.astype(np.float32) / 255
    for one, victim in zip(found, victims, strict=True):
        assert one.cost.l1 == pytest.approx(0.2, rel=0.02)
        defence = owner.defence("reverse-sigmoid@0.2", 0, victim)
        assert defence.name == one.spec
        # On all 1,200 instead of the 1,000 of validation: near, not equal.
        everywhere = cost_of(defence, images, softmax(victim.predict(images))).l1
        assert everywhere == pytest.approx(one.cost.l1, rel=0.1)
        assert everywhere != one.cost.l1


def test_what_is_found_is_kept_and_found_again(tmp_path: Path) -> None:
    victim = network(0, 1.0)
    first = defender(tmp_path).at_cost("gate:0:0.05+noise@0.2", 5, victim)
    (file,) = tmp_path.glob("*.json")
    assert defender(tmp_path).at_cost("gate:0:0.05+noise@0.2", 5, victim) == first
    assert defender().at_cost("gate:0:0.05+noise@0.2", 5, victim) == first
    # It is read, not found anew.
    text = file.read_text("utf-8")
    file.write_text(text.replace('"shortfall": ""', '"shortfall": "as kept"'), "utf-8")
    assert defender(tmp_path).at_cost("gate:0:0.05+noise@0.2", 5, victim).shortfall == "as kept"
    # Another victim, seed or cost is another thing to find.
    owner = defender(tmp_path)
    owner.at_cost("gate:0:0.05+noise@0.2", 5, network(1, 1.0))
    owner.at_cost("gate:0:0.05+noise@0.2", 6, victim)
    owner.at_cost("gate:0:0.05+noise@0.3", 5, victim)
    assert len(list(tmp_path.glob("*.json"))) == 4


def test_a_strength_needs_neither_victim_nor_validation_images() -> None:
    plain = defender(validation=None)
    assert plain.at_cost("reverse-sigmoid:0.5") is None
    assert plain.defence("gate:0:0.05+rounding:1").name == "gate:0:0.05+rounding:1"
    for owner, victim in ((plain, network(0, 1.0)), (defender(), None)):
        with pytest.raises(InputError, match="responses to validation images"):
            owner.defence("dcp@0.2", 0, victim)


def test_a_victim_is_asked_for_validation_images_alone() -> None:
    victim = Counted(network(0, 1.0))
    owner = defender()
    owner.at_cost("dcp@0.2", 0, victim)
    assert victim.calls == 1
    owner.defence("dcp:0.7", 0, victim)
    assert victim.calls == 1
