"""Metrics of clones, and the utility of victims."""

import numpy as np
import pytest
import torch
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import (
    Victim,
    accuracy,
    agreement,
    ece,
    flips_from_reference,
    l1_to_reference,
    nll,
    softmax,
)
from divqat_brevitas.extraction.evaluation.metrics import ood_auroc
from divqat_brevitas.extraction.evaluation.utility import (
    AdversarialLogits,
    adversarial_examples,
    transfer_row,
    utility_row,
)
from divqat_brevitas.extraction.predictor import TorchPredictor

# Rows of probabilities .75/.25 and .9/.1, as logits.
LOGITS = np.log(np.array([[0.75, 0.25], [0.25, 0.75], [0.9, 0.1], [0.9, 0.1]])).astype(np.float32)
# Everything below goes through float32 logits and probabilities.
CLOSE = 1e-6


def test_accuracy(make_spy, images) -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]]
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 0, 0, 1])
    assert accuracy(make_spy(logits=logits), images, labels) == 0.7
    as_bytes = np.zeros((10, 1, 8, 8), np.uint8)
    assert accuracy(make_spy(logits=logits), as_bytes, labels) == 0.7


def test_agreement_is_not_charged_to_the_victim(make_spy, images) -> None:
    clone = make_spy(logits=np.eye(3, dtype=np.float32)[[0] * 10])
    model = make_spy(logits=np.eye(3, dtype=np.float32)[[0] * 6 + [1] * 4])
    victim = Victim(model, budget=1)
    assert agreement(clone, model, images) == 0.6
    assert agreement(model, model, images) == 1.0
    assert victim.queries_used == 0
    with pytest.raises(InputError, match="a Victim cannot be attacked"):
        agreement(clone, victim, images)  # type: ignore[arg-type]


def test_ece_by_hand() -> None:
    # Bin of .75: one of two right, gap .25 on half the images; bin of .9: one of two, gap .4.
    labels = np.array([0, 0, 0, 1])
    assert ece(LOGITS, labels) == pytest.approx(0.5 * 0.25 + 0.5 * 0.4, abs=CLOSE)
    # One bin: accuracy .5, mean confidence .825.
    assert ece(LOGITS, labels, bins=1) == pytest.approx(0.325, abs=CLOSE)


def test_ece_bins_are_closed_above() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(500, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 500)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert ece(logits, labels) == pytest.approx(expected, abs=CLOSE)
    # Confidence exactly .5 belongs to the lower of two bins, with the .4 of the second row.
    halves = np.log(np.array([[0.5, 0.5, 0.0001], [0.4, 0.3, 0.3]])).astype(np.float32)
    halves[0, 2] = -1e4
    assert ece(halves, np.array([0, 1]), bins=2) == pytest.approx(abs(1 - 0.9) / 2, abs=CLOSE)


def test_nll_by_hand_and_finite_at_large_logits() -> None:
    labels = np.array([0, 0, 0, 1])
    expected = -np.log([0.75, 0.25, 0.9, 0.1]).mean()
    assert nll(LOGITS, labels) == pytest.approx(expected, abs=CLOSE)
    huge = np.array([[-1000.0, 1000.0]], np.float32)
    assert nll(huge, np.array([0])) == 2000.0


def test_l1_and_flips() -> None:
    reference = LOGITS[::-1].copy()
    # |.75-.9| twice a row, and |.25-.9| twice a row, each twice
    assert l1_to_reference(LOGITS, reference) == pytest.approx((0.3 + 1.3) / 2, abs=CLOSE)
    assert flips_from_reference(LOGITS, reference) == 0.5
    assert l1_to_reference(LOGITS, LOGITS) == 0.0
    assert flips_from_reference(LOGITS, LOGITS) == 0.0
    opposite = np.array([[500.0, 0.0]], np.float32)
    assert l1_to_reference(opposite, opposite[:, ::-1]) == 2.0

    # One output more rejects: an image that only it has is as far as can be, and flipped.
    rejecting = np.pad(LOGITS, ((0, 0), (0, 1)), constant_values=-100)
    assert l1_to_reference(rejecting, LOGITS) == pytest.approx(0, abs=CLOSE)
    rejecting[0, 2] = 100
    assert l1_to_reference(rejecting, LOGITS) == pytest.approx(2 / 4, abs=CLOSE)
    assert flips_from_reference(rejecting, LOGITS) == 1 / 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ece(LOGITS, np.array([0, 1, 2, 0])), r"labels must lie in 0\.\.1"),
        (lambda: ece(LOGITS, np.array([0, 1])), "4 integers"),
        (lambda: ece(LOGITS, np.array([0, 1, 0, -1])), "not be negative"),
        (lambda: ece(LOGITS, np.zeros(4)), "float64"),
        (lambda: ece(LOGITS, np.zeros(4, np.int64), bins=0), "at least 1 bin"),
        (lambda: nll(LOGITS[:0], np.zeros(0, np.int64)), "at least one row"),
        (lambda: nll(LOGITS[0], np.zeros(1, np.int64)), "shape"),
        (lambda: nll(LOGITS * np.nan, np.zeros(4, np.int64)), "NaN"),
        (lambda: l1_to_reference(LOGITS, LOGITS[:2]), "shape"),
        (lambda: l1_to_reference(LOGITS, np.zeros((4, 3), np.float32)), "compared"),
        (lambda: accuracy(nn.Flatten(), np.zeros((2, 8, 8), np.uint8), np.zeros(2)), "shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


EPS = 0.1


def one_hot(labels: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[labels]


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    # Few distinct values: many ties.
    inside = rng.integers(0, 4, (40, 3)).astype(np.float32)
    outside = rng.integers(0, 3, (30, 3)).astype(np.float32)

    def confidence(logits: np.ndarray) -> np.ndarray:
        e = np.exp(logits.astype(np.float64))
        return (e / e.sum(axis=1, keepdims=True)).max(axis=1).round(12)

    a, b = confidence(inside)[:, None], confidence(outside)[None]
    assert ood_auroc(inside, outside) == pytest.approx(((a > b) + (a == b) / 2).mean(), abs=1e-12)
    assert ood_auroc(outside, inside) == pytest.approx(1 - ood_auroc(inside, outside), abs=1e-12)


def test_auroc_tells_saturated_confidences_apart() -> None:
    # Both are 1 in float32 and float64.
    assert ood_auroc(np.array([[60, 0]], np.float32), np.array([[50, 0]], np.float32)) == 1.0


def test_auroc_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="same classes"):
        ood_auroc(one_hot([0]), one_hot([0], classes=4))
    with pytest.raises(InputError, match="at least one row"):
        ood_auroc(one_hot([0]), one_hot([]))


def test_transfer_by_hand() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    clean = one_hot([0, 1, 2, 0, 0])  # the last is wrong already: not counted
    # Reference fooled on 0 and 1; of these the device falls for 0; and for 2 alone.
    found = AdversarialLogits(engine=one_hot([1, 1, 0, 0, 1]), reference=one_hot([1, 2, 2, 0, 1]))
    assert transfer_row(clean, one_hot([0, 1, 2, 0, 1]), labels, found) == {
        "images": 4,
        "reference_fooled": 0.5,
        "device_fooled": 0.5,
        "transferred": 0.5,
        "evasive": 0.25,
    }


def test_nothing_transfers_where_nothing_fooled() -> None:
    clean = one_hot([0, 1])
    found = AdversarialLogits(engine=clean, reference=clean)
    assert transfer_row(clean, clean, np.array([0, 1]), found)["transferred"] is None
    with pytest.raises(InputError, match="nothing to fool"):
        transfer_row(clean, clean, np.array([1, 0]), found)


def test_utility_of_a_victim_equal_to_its_reference(digits) -> None:
    logits = TorchPredictor(digits.model).predict(digits.test)
    noise = np.random.default_rng(0).random(digits.test.shape, np.float32)
    row = utility_row(
        logits, logits, digits.test_labels, ood_logits=TorchPredictor(digits.model).predict(noise)
    )
    assert row["accuracy"] == accuracy(digits.model, digits.test, digits.test_labels)
    assert row["l1_to_reference"] == row["flips_from_reference"] == 0
    assert row["ood_auroc"] is not None
    assert 0.5 < row["ood_auroc"] <= 1
    assert row["adversarial"] == {}


def test_pgd_fools_more_than_fgsm_within_the_ball(digits) -> None:
    images, labels = digits.test[:100], digits.test_labels[:100]
    made = {
        steps: adversarial_examples(digits.model, images, labels, EPS, steps) for steps in (1, 10)
    }
    for moved in made.values():
        assert moved.dtype == np.float32
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert abs(moved.astype(np.float64) - images).max() <= EPS + 1e-7  # float32's rounding
    fooled = {steps: accuracy(digits.model, moved, labels) for steps, moved in made.items()}
    assert fooled[10] <= fooled[1] < accuracy(digits.model, images, labels) - 0.1


def test_fgsm_is_the_sign_of_the_gradient_and_leaves_the_model_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3)).train()
    images, labels = np.full((5, 1, 4, 4), 0.5, np.float32), np.array([0, 1, 2, 0, 1])
    x = torch.from_numpy(images).requires_grad_()
    nn.functional.cross_entropy(model.eval()(x), torch.from_numpy(labels)).backward()
    expected = images + np.float32(EPS) * x.grad.sign().numpy()
    model.train().zero_grad()
    np.testing.assert_array_equal(adversarial_examples(model, images, labels, EPS, 1), expected)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_adversarial_examples_repeat_and_do_not_depend_on_batches(digits) -> None:
    images, labels = digits.test[:20], digits.test_labels[:20]
    state = torch.random.get_rng_state()
    first = adversarial_examples(digits.model, images, labels, EPS, 3, seed=1)
    np.testing.assert_array_equal(
        first, adversarial_examples(digits.model, images, labels, EPS, 3, seed=1)
    )
    parts = adversarial_examples(digits.model, images, labels, EPS, 3, seed=1, batch_size=7)
    np.testing.assert_allclose(first, parts, atol=1e-6)  # convolutions of other batch sizes
    assert (first != adversarial_examples(digits.model, images, labels, EPS, 3, seed=2)).any()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("bad", [{"eps": 0}, {"eps": 2}, {"steps": 0}])
def test_adversarial_settings_are_checked(digits, bad) -> None:
    with pytest.raises(InputError, match="eps"):
        adversarial_examples(digits.model, digits.test[:2], digits.test_labels[:2], **bad)


def test_a_model_without_gradient_is_refused(digits) -> None:
    class Rounds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor(x.detach().flatten(1).numpy()[:, :10])

    with pytest.raises(InputError, match="no gradient"):
        adversarial_examples(Rounds(), digits.test[:2], digits.test_labels[:2])
