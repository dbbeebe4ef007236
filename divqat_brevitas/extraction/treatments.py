"""What a thief makes of the answers before training on them.

| treatment | training target                                                      |
|-----------|----------------------------------------------------------------------|
| `soft`    | the answer as it came (softmax of it where the oracle shows logits)  |
| `argmax`  | one-hot of the answer's largest entry: ignores poisoned probabilities |
| `smooth`  | `argmax` with label smoothing 0.1 (Szegedy et al., CVPR 2016)        |

With a `top1` oracle `soft` and `argmax` are the same. An answer without any mass (all zero, from
a coarse `rounded` oracle) says nothing: its target is zero, and it adds nothing to the loss.
"""

from collections.abc import Callable

import numpy as np

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction.arrays import Answers
from divqat_brevitas.extraction.oracles import answer_top1, softmax

SMOOTHING = 0.1


def _smooth(probabilities: Answers) -> Answers:
    classes = np.float32(probabilities.shape[1])
    return answer_top1(probabilities) * np.float32(1 - SMOOTHING) + np.float32(SMOOTHING) / classes


TREATMENTS: dict[str, Callable[[Answers], Answers]] = {
    "soft": np.copy,
    "argmax": answer_top1,
    "smooth": _smooth,
}


def as_probabilities(answers: Answers, oracle: str) -> Answers:
    """Answers on the scale of probabilities: softmax for the "logits" oracle, else as they are."""
    return softmax(answers) if oracle == "logits" else answers


def treat(probabilities: Answers, treatment: str) -> Answers:
    """Training targets, float32 (N, classes), from answers on the scale of probabilities.

    Args:
        probabilities: float32 (N, classes), see :func:`as_probabilities`.
        treatment: "soft", "argmax" or "smooth".

    Raises:
        InputError: unknown treatment.

    Example:
        >>> treat(np.array([[0.6, 0.4]], np.float32), "argmax")
        array([[1., 0.]], dtype=float32)
    """
    if treatment not in TREATMENTS:
        raise unknown_name("label treatment", treatment, TREATMENTS)
    empty = probabilities.sum(axis=1, keepdims=True) == 0
    return np.where(empty, np.float32(0), TREATMENTS[treatment](probabilities))
