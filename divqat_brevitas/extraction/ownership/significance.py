"""The ownership test: the suspect's labels of triggers, and an exact p-value.

Null hypothesis: the suspect was made without the changed responses. Each trigger's secret label is
uniform over the classes other than the victim's own label, and independent of such a suspect, of
the images and of the other triggers. So among the D triggers that the suspect gives another label
than the victim's own, the number of secret labels is binomial with D trials and probability
1 / (classes - 1). The p-value is exact, needs no null network, and holds for every network, data
set and architecture. A network that only repeats the victim's own labels has D = 0 and p = 1.

What is assumed: the triggers are all responses that changed, not a selection. An owner who selects
images, such as those where the victim errs and the secret label is the truth, accuses everyone
(false claims: Liu et al., USENIX Security 2024). The commitment fixes secret and victim before the
release, so that the labels cannot be fitted; a judge repeats the test with independent networks on
the same triggers: they must show no significance. An owner who may choose among N secrets gains at
most a factor of N.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Labels, to_float
from divqat_brevitas.extraction.ownership.fingerprint import Fingerprint, Triggers
from divqat_brevitas.extraction.predictor import Predictor, as_predictor
from divqat_brevitas.extraction.victim import Victim

Suspect = Predictor | Victim | nn.Module
SuspectKind = Literal["clone", "independent", "removal"]


@dataclass(frozen=True)
class OwnershipTest:
    """The outcome of a test.

    Attributes:
        triggers: images that the suspect was asked.
        deviating: those that it gives another class than the victim's own label.
        rate: share of the triggers with the secret label, a fraction of 1.
        null_rate: its expectation for a network made without the responses that deviates as often.
        p_value: probability of such a rate, or a higher one, for such a network.
    """

    triggers: int
    deviating: int
    rate: float
    null_rate: float
    p_value: float


def ownership_test(
    fingerprint: Fingerprint, triggers: Triggers, suspect: Suspect, most: int = 200
) -> OwnershipTest:
    """Ask a suspect for labels of the triggers, and compare them with the secret ones.

    Args:
        fingerprint: of the victim, from an opened commitment where others should believe it.
        triggers: from the victim's log; those that this fingerprint does not change are ignored.
        suspect: a torch module or predictor, or a :class:`Victim`, such as a server's, whose
            budget it uses. Only the most probable class of a response is used.
        most: queries at most: the first triggers are taken.

    Raises:
        InputError: no trigger belongs to the fingerprint, or the suspect takes other images.
        BudgetExceededError: the suspect answers fewer queries than there are triggers.

    Example:
        >>> from divqat_brevitas.extraction.ownership import Fingerprint, Triggers
        >>> images = np.random.default_rng(0).integers(0, 256, (500, 1, 8, 8), np.uint8)
        >>> fingerprint = Fingerprint("ab" * 32, classes=10, share=0.1)
        >>> suspect = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> result = ownership_test(fingerprint, Triggers(images, np.zeros(500, np.int64)), suspect)
        >>> 30 < result.triggers < 70, result.p_value > 1e-4
        (True, True)
    """
    marked, secret = fingerprint.read(to_float(triggers.images), triggers.own)
    asked = np.flatnonzero(marked)[:most]
    if not len(asked):
        raise InputError(
            "none of the triggers belongs to this fingerprint: it is another secret's log, or no "
            "response changed yet."
        )
    labels = labels_of(suspect, triggers.images[asked])
    return labels_test(triggers.own[asked], secret[asked], labels, fingerprint.classes)


def labels_test(own: Labels, secret: Labels, labels: Labels, classes: int) -> OwnershipTest:
    """The test of labels that a suspect gave.

    Args:
        own: (N,) the victim's own labels of the triggers.
        secret: (N,) the secret ones.
        labels: (N,) the suspect's.
        classes: number of the victim's classes.

    Example:
        >>> labels_test(np.zeros(8, np.int64), np.full(8, 2), np.full(8, 2), 10).p_value == 9**-8
        True
    """
    deviating = int(((labels != own) & (labels < classes)).sum())
    right = int((labels == secret).sum())
    return OwnershipTest(
        triggers=len(labels),
        deviating=deviating,
        rate=right / len(labels),
        null_rate=deviating / (classes - 1) / len(labels),
        p_value=binomial_p_value(right, deviating, classes - 1),
    )


def binomial_p_value(right: int, trials: int, choices: int) -> float:
    """P(at least ``right`` of ``trials``) where each has a chance of 1 / ``choices``; exact.

    Example:
        >>> binomial_p_value(0, 5, 9), binomial_p_value(2, 2, 9) == 1 / 81
        (1.0, True)
    """
    ways = sum(
        comb(trials, count) * (choices - 1) ** (trials - count)
        for count in range(right, trials + 1)
    )
    return float(Fraction(ways, choices**trials))


def false_claims(p_values: Iterable[float], level: float) -> float:
    """Share of independent tests that reach a level, a fraction of 1.

    Example:
        >>> false_claims([0.2, 0.0004, 1.0, 0.7], 1e-3)
        0.25
    """
    values = list(p_values)
    return sum(value <= level for value in values) / len(values)


def labels_of(suspect: Suspect, images: NDArray[np.uint8]) -> Labels:
    """The suspect's labels (N,) of uint8 images (N, C, H, W).

    Raises:
        InputError: the suspect takes inputs of another range.
    """
    model = suspect if isinstance(suspect, Victim) else as_predictor(suspect)
    declared = getattr(model, "input_range", None)
    if declared is not None and not declared.holds(np.array([0.0, 1.0], np.float32)):
        raise InputError(
            f"the suspect takes inputs in {declared}; triggers are images in [0, 1]. Wrap it in a "
            "predictor that rescales them."
        )
    pixels = to_float(images)
    responses = model.query(pixels) if isinstance(model, Victim) else model.predict(pixels)
    labels: Labels = responses.argmax(axis=1).astype(np.int64)
    return labels
