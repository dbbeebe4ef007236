import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import softmax
from divqat_brevitas.extraction.treatments import as_probabilities, treat

ANSWERS = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0], [0.1, 0.2, 0.6]], np.float32)


def test_soft_is_as_answered() -> None:
    assert np.array_equal(treat(ANSWERS, "soft"), ANSWERS)


def test_argmax_and_smooth() -> None:
    hard = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]], np.float32)
    assert np.array_equal(treat(ANSWERS, "argmax"), hard)
    third = 0.1 / 3
    smooth = [[0.9 + third, third, third], [0, 0, 0], [third, third, 0.9 + third]]
    # float32 of sums of two terms
    np.testing.assert_allclose(treat(ANSWERS, "smooth"), smooth, rtol=1e-6)


def test_only_logits_are_put_through_softmax() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    assert np.array_equal(as_probabilities(logits, "logits"), softmax(logits))
    assert np.array_equal(as_probabilities(ANSWERS, "topk"), ANSWERS)


def test_unknown_treatment() -> None:
    with pytest.raises(InputError, match="did you mean 'argmax'"):
        treat(ANSWERS, "argmx")
