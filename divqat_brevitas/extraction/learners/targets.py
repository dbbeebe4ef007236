"""Training targets made of responses.

| name            | training target                                                          |
|-----------------|--------------------------------------------------------------------------|
| `soft`          | the response itself (its softmax where the oracle shows logits)          |
| `argmax`        | one-hot of the largest entry: ignores perturbed probabilities            |
| `smooth:E`      | `argmax` with label smoothing E, 0.1 (Szegedy et al., CVPR 2016)         |
| `temperature:T` | the response at temperature T, 2: p^(1/T), renormalised; undoes a        |
|                 | sharpening above 1, a flattening below it                                |
| `topk:K`        | the K largest entries, 3, renormalised: drops a perturbed tail           |
| `drop-top`      | all but the largest entry, renormalised: removes a confident wrong class |
| `second`        | one-hot of the second largest entry                                      |
| `centred`       | each class's log-probability minus its median over all responses,        |
|                 | rescaled: removes a constant out-of-distribution target                  |

A parameter after ":" may be left out; the table names its default. With a `top1` oracle `soft` and
`argmax` are the same. A response without information (all zero, from a coarse `rounded` oracle, or
with nothing under its largest entry) has the target zero and adds nothing to the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.oracles import show_top1, softmax

SMOOTHING = 0.1
TEMPERATURE = 2.0
TOP_K = 3


def smooth(probabilities: Responses, smoothing: float = SMOOTHING) -> Responses:
    """One-hot of the largest entry with label smoothing."""
    classes = np.float32(probabilities.shape[1])
    hard = show_top1(probabilities)
    return hard * np.float32(1 - smoothing) + np.float32(smoothing) / classes


def at_temperature(probabilities: Responses, temperature: float = TEMPERATURE) -> Responses:
    """p^(1/T), renormalised: softmax(z/T) where p = softmax(z); zeros stay zero.

    Example:
        >>> at_temperature(np.array([[0.8, 0.2]], np.float32), 0.5).round(3)
        array([[0.941, 0.059]], dtype=float32)
    """
    clipped = np.maximum(probabilities.astype(np.float64), 0)
    # Against the largest entry: the power of a small one may underflow, the largest stays 1.
    largest = clipped.max(axis=1, keepdims=True)
    powers = np.divide(clipped, largest, out=np.zeros_like(clipped), where=largest > 0)
    return _renormalised(powers ** (1 / temperature))


def top_k(probabilities: Responses, k: int = TOP_K) -> Responses:
    """The ``k`` largest entries, renormalised; of equal ones the lowest classes."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    largest = np.zeros(probabilities.shape, np.float64)
    np.put_along_axis(largest, order, np.take_along_axis(probabilities, order, axis=1), axis=1)
    return _renormalised(largest)


def drop_top(probabilities: Responses) -> Responses:
    """All but the largest entry, renormalised; zero where nothing is left.

    Example:
        >>> drop_top(np.array([[0.9, 0.02, 0.08]], np.float32)).round(3)
        array([[0. , 0.2, 0.8]], dtype=float32)
    """
    rest = probabilities.astype(np.float64)
    rest[np.arange(len(rest)), probabilities.argmax(axis=1)] = 0
    return _renormalised(rest)


def second(probabilities: Responses) -> Responses:
    """One-hot of the second largest entry; zero where nothing is under the largest."""
    rest = drop_top(probabilities)
    return np.where(rest.any(axis=1, keepdims=True), show_top1(rest), np.float32(0))


def centred(probabilities: Responses) -> Responses:
    """Softmax of log-probabilities less their median over the transfer set, at unit spread.

    A constant out-of-distribution target, trained into a network, adds nearly the same logits to
    every response; the small differences still contain the undefended response. Rows that equal
    the median become zero. Where all rows do, as behind a label-only fallback, the responses stay
    as they are.

    Example:
        >>> rows = np.array([[0.98, 0.01, 0.01], [0.97, 0.02, 0.01], [0.98, 0.01, 0.01]])
        >>> centred(rows.astype(np.float32)).argmax(axis=1)[1]
        np.int64(1)
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-7))
    differences = logs - np.median(logs, axis=0)
    informative = np.ptp(differences, axis=1) > 1e-6
    if not informative.any():
        return np.copy(probabilities)
    scaled = differences / differences[informative].std()
    return np.where(informative[:, None], softmax(scaled.astype(np.float32)), np.float32(0))


TARGETS: dict[str, Callable[..., Responses]] = {
    "soft": np.copy,
    "argmax": show_top1,
    "smooth": smooth,
    "temperature": at_temperature,
    "topk": top_k,
    "drop-top": drop_top,
    "second": second,
    "centred": centred,
}


@dataclass(frozen=True)
class _Parameter:
    """What may stand after the ":" of a name."""

    read: type[int] | type[float]
    low: float
    high: float


_PARAMETERS = {
    "smooth": _Parameter(float, 0.0, 0.9),
    "temperature": _Parameter(float, 0.05, 100.0),
    "topk": _Parameter(int, 1, 1_000_000),
}


def target_function(name: str) -> Callable[[Responses], Responses]:
    """The function that makes the targets called ``name``, such as "soft" or "temperature:4".

    Raises:
        InputError: an unknown name, or a parameter that it does not take or that is out of range.

    Example:
        >>> target_function("topk:1")(np.array([[0.6, 0.4]], np.float32))
        array([[1., 0.]], dtype=float32)
    """
    base, colon, text = name.partition(":")
    if base not in TARGETS:
        raise unknown_name("training targets", name, TARGETS)
    function = TARGETS[base]
    if not colon:
        return function
    if base not in _PARAMETERS:
        raise InputError(f"training targets {base!r} takes no parameter, but got {name!r}.")
    parameter = _PARAMETERS[base]
    try:
        value = parameter.read(text)
    except ValueError:
        value = parameter.read(parameter.low - 1)
    # Written so that NaN fails it too.
    if not parameter.low <= value <= parameter.high:
        kind = "whole number" if parameter.read is int else "number"
        raise InputError(
            f"training targets {name!r}: after the colon {base!r} takes a {kind} from "
            f"{parameter.low:g} to {parameter.high:g}."
        )
    return lambda probabilities: function(probabilities, value)


def as_probabilities(responses: Responses, oracle: str) -> Responses:
    """Responses on the scale of probabilities: a softmax where the oracle shows logits."""
    return softmax(responses) if oracle == "logits" else responses


def training_targets(probabilities: Responses, targets: str) -> Responses:
    """Training targets, float32 (N, classes), from responses on the scale of probabilities.

    Args:
        probabilities: float32 (N, classes), see :func:`as_probabilities`.
        targets: a name, see the module.

    Raises:
        InputError: an unknown name or parameter.

    Example:
        >>> training_targets(np.array([[0.6, 0.4]], np.float32), "argmax")
        array([[1., 0.]], dtype=float32)
    """
    function = target_function(targets)
    empty = probabilities.sum(axis=1, keepdims=True) == 0
    return np.where(empty, np.float32(0), function(probabilities))


def _renormalised(weights: NDArray[np.float64]) -> Responses:
    """Rows of sum 1, float32; rows without mass stay zero."""
    mass = weights.sum(axis=1, keepdims=True)
    responses = np.divide(weights, mass, out=np.zeros_like(weights), where=mass > 0)
    renormalised: Responses = responses.astype(np.float32)
    return renormalised
