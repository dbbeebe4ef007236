"""Outputs of a predictor: logits, or probabilities, which must not pass a softmax again.

A softmax of probabilities is a distribution with other values: a confidence of 0.93 becomes 0.38,
and all results based on it are wrong. Probabilities are therefore declared, and undeclared ones are
recognised before the first response.
"""

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import Images, check_logits
from divqat_brevitas.extraction.query.oracles import Logits, log_probabilities
from divqat_brevitas.extraction.query.predictor import Predictor
from divqat_brevitas.input_range import UNIT, InputRange

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
