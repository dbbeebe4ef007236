"""Quality of clones and cost of defences; fractions of 1 where no unit is given.

``labels_of``, ``accuracy`` and ``agreement`` ask models; the others take logits, float32 (N,
classes), so that one prediction of the test set serves them all. The evaluator's own predictions
do not count as queries: pass the model, not the :class:`Victim`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import (
    Labels,
    Responses,
    check_labels,
    check_logits,
    check_pool,
    to_float,
)
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import Predictor, as_predictor

Model = Predictor | nn.Module
_NEVER = -1e4  # a logit whose softmax is 0


def accuracy(model: Model, images: NDArray[Any], labels: NDArray[Any]) -> float:
    """Fraction of images whose largest logit is at their label.

    Args:
        model: a Predictor or torch module.
        images: uint8, or float32 in [0, 1], NCHW.
        labels: integers (N,).

    Raises:
        InputError: bad images or labels.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> 0 <= accuracy(model, np.zeros((4, 1, 8, 8), np.uint8), np.arange(4)) <= 1
        True
    """
    predicted = labels_of(model, images)
    return float((predicted == check_labels(labels, len(predicted))).mean())


def agreement(clone: Model, victim: Model, images: NDArray[Any]) -> float:
    """Fraction of images that clone and victim give the same label: the clone's fidelity.

    Jagielski et al., "High Accuracy and High Fidelity Extraction of Neural Networks", USENIX
    Security 2020.

    Raises:
        InputError: see :func:`accuracy`.
    """
    return float((labels_of(clone, images) == labels_of(victim, images)).mean())


def ece(logits: Responses, labels: NDArray[Any], bins: int = 15) -> float:
    """Expected calibration error: mean |accuracy - confidence| over equally wide bins.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3; bin m holds
    confidences in ((m-1)/bins, m/bins], weighted by its share of the images.

    Raises:
        InputError: bad logits or labels, or no bin.
    """
    if bins < 1:
        raise InputError(f"ece needs at least 1 bin, but got {bins}.")
    logits, labels = _checked(logits, labels)
    probabilities = softmax(logits)
    confidence = probabilities.max(axis=1).astype(np.float64)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    index = np.ceil(confidence * bins).astype(np.int64) - 1
    return float(np.abs(np.bincount(index, gap, bins)).sum() / len(labels))


def nll(logits: Responses, labels: NDArray[Any]) -> float:
    """Mean negative log-likelihood of the labels, in nats.

    Raises:
        InputError: bad logits or labels.
    """
    logits, labels = _checked(logits, labels)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())


def l1_to_reference(logits: Responses, reference: Responses) -> float:
    """Mean ℓ1 distance between two models' probabilities, in [0, 2].

    The utility cost of Orekondy et al., "Prediction Poisoning", ICLR 2020. Logits with one output
    more than the reference's are of a network with a reject output.

    Raises:
        InputError: logits of different shapes, or not finite.
    """
    logits, reference = _pair(logits, reference)
    difference = softmax(logits).astype(np.float64) - softmax(reference)
    return float(np.abs(difference).sum(axis=1).mean())


def flips_from_reference(logits: Responses, reference: Responses) -> float:
    """Fraction of images with another label than the reference model's.

    Raises:
        InputError: see :func:`l1_to_reference`.
    """
    logits, reference = _pair(logits, reference)
    return float((logits.argmax(axis=1) != reference.argmax(axis=1)).mean())


def ood_auroc(logits: Responses, ood_logits: Responses) -> float:
    """How well confidence separates test images from out-of-distribution ones: 1 always, 0.5 never.

    Area under the ROC curve of the largest softmax probability, test images being the positives
    (Hendrycks and Gimpel, ICLR 2017, section 2): the probability that a
    test image gets more confidence than an out-of-distribution one; ties count half.

    Args:
        logits: of test images, float32 (N, classes).
        ood_logits: of out-of-distribution images, float32 (M, classes).

    Raises:
        InputError: bad logits, none of one kind, or another number of classes.

    Example:
        >>> sure, unsure = np.array([[9, 0]], np.float32), np.array([[1, 0]], np.float32)
        >>> ood_auroc(sure, unsure), ood_auroc(sure, sure)
        (1.0, 0.5)
    """
    logits = check_logits(logits, None, "logits")
    ood_logits = check_logits(ood_logits, None, "the out-of-distribution logits")
    if logits.shape[1] != ood_logits.shape[1] or not len(logits) or not len(ood_logits):
        raise InputError(
            f"logits of shapes {logits.shape} and {ood_logits.shape} give no AUROC: both kinds of "
            "images need at least one row, and the same classes."
        )
    # In logarithms, where confidences near 1 keep their order.
    inside, outside = (_log_confidence(rows) for rows in (logits, ood_logits))
    outside.sort()
    below = np.searchsorted(outside, inside, side="left")
    up_to = np.searchsorted(outside, inside, side="right")
    return float((below + up_to).sum() / 2 / len(inside) / len(outside))


def _log_confidence(logits: Responses) -> NDArray[np.float64]:
    """Logarithm of the largest softmax probability, precise at both ends."""
    rows = np.sort(logits.astype(np.float64), axis=1)
    others = np.exp(rows[:, :-1] - rows[:, -1:]).sum(axis=1)
    confidence: NDArray[np.float64] = -np.log1p(others)
    return confidence


def labels_of(model: Model, images: NDArray[Any], classes: int | None = None) -> Labels:
    """A model's labels: the index of the largest logit of each image, int64 (N,).

    Args:
        model: a Predictor or torch module.
        images: as of :func:`accuracy`.
        classes: labels are of the first so many outputs; None: all. A clone of a victim that
            rejects images has an output for that; its attacker wants a class.

    Raises:
        InputError: bad images, or predictions of a wrong shape or not finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> labels_of(model, np.zeros((4, 1, 8, 8), np.uint8)).shape
        (4,)
    """
    batch = to_float(check_pool(images, "the images"))
    predictor = as_predictor(model)
    logits = check_logits(predictor.predict(batch), len(batch), f"the predictions of {predictor}")
    labels: Labels = logits[:, :classes].argmax(axis=1)
    return labels


def _checked(logits: Responses, labels: NDArray[Any]) -> tuple[Responses, Labels]:
    logits = check_logits(logits, None, "logits")
    labels = check_labels(labels, len(logits))
    if len(labels) == 0 or labels.max() >= logits.shape[1]:
        raise InputError(
            f"labels must lie in 0..{logits.shape[1] - 1}, one for each of at least one row of "
            "logits. The model and the data set disagree about the classes."
        )
    return logits, labels


def _pair(logits: Responses, reference: Responses) -> tuple[Responses, Responses]:
    reference = check_logits(reference, None, "the reference's logits")
    logits = check_logits(logits, len(reference), "logits")
    if logits.shape[1] == reference.shape[1] + 1:  # a reject output; the reference rejects nothing
        reference = np.pad(reference, ((0, 0), (0, 1)), constant_values=_NEVER)
    if logits.shape != reference.shape or len(logits) == 0:
        raise InputError(
            f"logits of shape {logits.shape} cannot be compared with the reference's "
            f"{reference.shape}; both must come from the same images and classes."
        )
    return logits, reference
