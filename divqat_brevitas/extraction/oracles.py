"""Oracles: what a victim shows of its logits, and the logits themselves.

| oracle    | response, float32 (N, classes)                                                |
|-----------|-------------------------------------------------------------------------------|
| `logits`  | the logits                                                                    |
| `soft`    | softmax probabilities                                                         |
| `topk`    | the `k` largest probabilities, the others 0; not renormalised, as services do |
| `rounded` | probabilities rounded to `decimals`, half to even; not renormalised           |
| `top1`    | one-hot of the label                                                          |

Equal logits: the lowest class index comes first, as in `np.argmax`.

A predictor may return probabilities, which must not pass a softmax again: that is a distribution
with other values, in which a confidence of 0.93 becomes 0.38, and all results based on it are
wrong. Probabilities are therefore declared, and undeclared ones are recognised before the first
response.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import Images, Responses, check_logits
from divqat_brevitas.extraction.predictor import Predictor
from divqat_brevitas.input_range import UNIT, InputRange

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


OUTPUTS = ("logits", "probabilities")

_SUM = 2.0**-8
"""Largest distance from 1 of a recognised row sum: twice the rounding of bfloat16, whose entries,
and so their sum, are off by at most 2**-9 of themselves."""
_ROUNDED = 0.005
"""Largest distance from 1 of a declared row sum, a class: services round to 2 places."""
_PROBES = 3
_PROBE_IMAGES = 8


class Outputs:
    """A predictor's outputs as logits.

    Args:
        predictor: the model.
        outputs: "logits" or "probabilities".

    Raises:
        InputError: another kind.

    Example:
        >>> class Sure:
        ...     def predict(self, images):
        ...         return np.full((len(images), 2), [0.75, 0.25], np.float32)
        >>> image = np.zeros((1, 1, 8, 8), np.float32)
        >>> np.exp(Outputs(Sure(), "probabilities").logits(image)).round(2)
        array([[0.75, 0.25]])
    """

    def __init__(self, predictor: Predictor, outputs: str) -> None:
        if outputs not in OUTPUTS:
            raise unknown_name("kind of outputs", outputs, OUTPUTS)
        self.kind = outputs
        self._predictor = predictor
        self._examined = outputs == "probabilities"

    def logits(self, images: Images) -> Logits:
        """Logits (N, classes): float32 as they came, or float64 logarithms of probabilities.

        Raises:
            InputError: responses of another shape, not finite, no probabilities where these are
                declared, or probabilities where logits are.
        """
        rows = check_logits(
            self._predictor.predict(images), len(images), "the victim's predictions"
        )
        if self.kind == "probabilities":
            error = np.abs(rows.sum(axis=1, dtype=np.float64) - 1).max()
            if rows.min() < 0 or error > min(0.5, _ROUNDED * rows.shape[1]):
                raise InputError(
                    "the victim's predictions are declared as probabilities, but a row is negative "
                    f"or its sum is off from 1 by {error:.3g}. Declare outputs='logits', or check "
                    "the model."
                )
            return log_probabilities(rows)
        if not self._examined and len(rows):
            self._refuse_probabilities(rows, images)
            self._examined = True
        return rows

    def _refuse_probabilities(self, rows: NDArray[np.float32], images: Images) -> None:
        """Refuse outputs that look like probabilities, after further batches confirm it.

        Logits may have the sum 1 for some images, and always do in a network with a constant
        output. Several batches of other images must therefore agree and hold more than one row.
        These predictions are the owner's and are not in the ledger.
        """
        batches = [rows]
        rng = np.random.default_rng(0)
        declared: InputRange = getattr(self._predictor, "input_range", None) or UNIT
        while _look_like_probabilities(batches[-1]):
            if len(batches) > _PROBES:
                break
            noise = rng.random((_PROBE_IMAGES, *images.shape[1:]))
            contrast = np.linspace(0, 1, _PROBE_IMAGES).reshape(-1, *[1] * (noise.ndim - 1))
            probe = declared.spread(noise * contrast)
            batches.append(
                check_logits(self._predictor.predict(probe), len(probe), "the responses")
            )
        else:
            return
        if len(np.unique(np.concatenate(batches), axis=0)) > 1:
            raise InputError(
                "the victim's predictions are probabilities, not logits: on all of "
                f"{len(batches)} batches no entry is negative and every row has the sum 1. A "
                "softmax of them would be a wrong response. Declare them with "
                "Victim(..., outputs='probabilities'), or give the model without its softmax."
            )


def _look_like_probabilities(rows: NDArray[np.float32]) -> bool:
    return bool(rows.min() >= 0 and np.abs(rows.sum(axis=1, dtype=np.float64) - 1).max() <= _SUM)
