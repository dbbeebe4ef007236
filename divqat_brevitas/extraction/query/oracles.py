"""Oracles: what a victim shows of its logits. Pure functions, logits in, responses out.

| oracle    | response, float32 (N, classes)                                                  |
|-----------|-------------------------------------------------------------------------------|
| `logits`  | the logits                                                                    |
| `soft`    | softmax probabilities                                                         |
| `topk`    | the `k` largest probabilities, the others 0; not renormalised, as services do |
| `rounded` | probabilities rounded to `decimals`, half to even; not renormalised           |
| `top1`    | one-hot of the label                                                          |

Equal logits: the lowest class index comes first, as in `np.argmax`.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import Responses

Logits = NDArray[np.floating[Any]]
"""Float32, or float64 behind a defence; responses are float32 either way."""

Oracle = Callable[[Logits], Responses]


def softmax(logits: Logits) -> Responses:
    """Probabilities, float32 (N, classes), computed in float64 with the row maximum removed.

    Example:
        >>> softmax(np.array([[1000.0, 1000.0]], np.float32))
        array([[0.5, 0.5]], dtype=float32)
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: Responses = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(
        np.float32
    )
    return probabilities


TINY = 1e-46
"""Replaces 0 in a logarithm. It is less than half of the smallest float32, so the softmax returns
an exact 0."""


def log_probabilities(probabilities: Responses) -> NDArray[np.float64]:
    """Logarithms of probabilities, float64 (N, classes): finite, at least log 1e-46.

    They have double precision, so that :func:`softmax` returns the probabilities to the last place
    of float32.

    Example:
        >>> softmax(log_probabilities(np.array([[0.75, 0.25, 0.0]], np.float32)))
        array([[0.75, 0.25, 0.  ]], dtype=float32)
    """
    logarithms: NDArray[np.float64] = np.log(np.maximum(probabilities.astype(np.float64), TINY))
    return logarithms


def show_logits(logits: Logits) -> Responses:
    """A copy of the logits."""
    return logits.astype(np.float32)


def show_topk(logits: Logits, *, k: int = 3) -> Responses:
    """The ``k`` largest probabilities of each row, zeros elsewhere; ``k >= classes`` is `soft`."""
    probabilities = softmax(logits)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    responses = np.zeros_like(probabilities)
    np.put_along_axis(responses, order, np.take_along_axis(probabilities, order, axis=1), axis=1)
    return responses


def show_rounded(logits: Logits, *, decimals: int = 2) -> Responses:
    """Probabilities rounded to ``decimals`` places, half to even."""
    return softmax(logits).astype(np.float64).round(decimals).astype(np.float32)


def show_top1(logits: Logits) -> Responses:
    """One-hot of the most probable class."""
    responses = np.zeros(logits.shape, np.float32)
    responses[np.arange(len(logits)), logits.argmax(axis=1)] = 1
    return responses


ORACLES: dict[str, Callable[..., Responses]] = {
    "logits": show_logits,
    "soft": softmax,
    "topk": show_topk,
    "rounded": show_rounded,
    "top1": show_top1,
}

_RANGES = {"k": (1, 1_000_000), "decimals": (0, 9)}


def make_oracle(name: str, **options: int) -> Oracle:
    """The oracle called ``name``; ``topk`` takes ``k``, ``rounded`` takes ``decimals``.

    Raises:
        InputError: unknown oracle or option, or an option out of range.

    Example:
        >>> make_oracle("rounded", decimals=1)(np.log([[0.74, 0.26]]).astype(np.float32))
        array([[0.7, 0.3]], dtype=float32)
    """
    if name not in ORACLES:
        raise unknown_name("oracle", name, ORACLES)
    function = ORACLES[name]
    names = [
        p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    for option, value in options.items():
        if option not in names:
            takes = ", ".join(names) or "no options"
            raise InputError(f"oracle {name!r} has no option {option!r}; it takes {takes}.")
        low, high = _RANGES[option]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(
                f"option {option!r} of oracle {name!r} must be a whole number from {low} to "
                f"{high}, but is {value!r}."
            )
    return lambda logits: function(logits, **options)
