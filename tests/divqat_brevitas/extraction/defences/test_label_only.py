"""The gate in front of the decoy's responses."""

import numpy as np
import pytest

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.defences import LabelOnlyFallback, Top1

IMAGES = np.zeros((200, 1, 8, 8), np.float32)
ROWS = np.random.default_rng(0).dirichlet(np.full(5, 0.5), 200).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.01, 0.2, 1.0])
def test_gated_rows_show_the_label_and_others_are_untouched(threshold: float) -> None:
    responses = LabelOnlyFallback(3, threshold).perturb(IMAGES, ROWS)
    in_play = (ROWS.argmax(1) == 3) | (ROWS[:, 3] >= np.float32(threshold))
    assert 0 < in_play.sum() < 200
    assert np.array_equal(responses[in_play], Top1().perturb(IMAGES, ROWS)[in_play])
    assert np.array_equal(responses[~in_play], ROWS[~in_play])
    assert np.array_equal(responses.argmax(1), ROWS.argmax(1))


@pytest.mark.parametrize("arguments", [(-1, 0.1), (0.5, 0.1), (0, 0.0), (0, 1.1)])
def test_refuses(arguments: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="gate"):
        LabelOnlyFallback(*arguments)


def test_refuses_a_class_that_is_not_there() -> None:
    with pytest.raises(InputError, match="0 to 4 only"):
        LabelOnlyFallback(5).perturb(IMAGES, ROWS)
