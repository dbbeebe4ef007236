import numpy as np
import pytest
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
