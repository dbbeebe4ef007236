"""Several defences one after the other, and a defended network as a predictor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.defences.base import Defence, check_perturbed
from divqat_brevitas.extraction.oracles import Logits, Outputs, log_probabilities, softmax
from divqat_brevitas.extraction.predictor import Predictor, as_predictor


class Composition:
    """Defences in order: each perturbs the responses of the one before it.

    Args:
        parts: at least one.

    Raises:
        InputError: no part.

    Example:
        >>> from divqat_brevitas.extraction.defences import Rounding, TopK
        >>> both = Composition([TopK(2), Rounding(1)])
        >>> both.name
        'topk:2+rounding:1'
        >>> both.perturb(np.zeros((1, 1, 8, 8), np.float32), np.float32([[0.5, 0.3, 0.2]]))
        array([[0.6, 0.4, 0. ]], dtype=float32)
    """

    def __init__(self, parts: Sequence[Defence]) -> None:
        if not parts:
            raise InputError("a composition needs at least one defence.")
        self.parts = tuple(parts)

    @property
    def name(self) -> str:
        """The parts' names, joined by "+"."""
        return "+".join(part.name for part in self.parts)

    @property
    def settings(self) -> dict[str, Any]:
        """The parts, in order."""
        return {"parts": [{"name": part.name, **part.settings} for part in self.parts]}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """The last part's response, float32 (N, classes); every part's is checked."""
        for part in self.parts:
            probabilities = check_perturbed(
                part, probabilities, part.perturb(images, probabilities)
            )
        return probabilities


def defended_logits(defence: Defence, images: Images, logits: Logits) -> NDArray[np.float64]:
    """The defence's responses y' as log y', float64 (N, classes), see :func:`log_probabilities`.

    Raises:
        InputError: responses that are no distributions, see :func:`check_perturbed`.
    """
    probabilities = softmax(logits)
    # The defence gets arrays of its own: it must not change what the caller keeps.
    responses = check_perturbed(
        defence, probabilities, defence.perturb(images.copy(), probabilities.copy())
    )
    return log_probabilities(responses)


class DefendedPredictor:
    """A network behind a defence, as a predictor: to measure what the defence costs its owner.

    Args:
        predictor: a predictor or torch module.
        defence: a defence; a randomised one draws from its stream here too, so give this object
            one of its own.
        outputs: what the predictor returns, "logits" or "probabilities".

    Example:
        >>> from divqat_brevitas.extraction.defences import Top1
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> DefendedPredictor(model, Top1()).predict(np.zeros((2, 1, 8, 8), np.float32)).shape
        (2, 3)
    """

    def __init__(
        self, predictor: Predictor | nn.Module, defence: Defence, outputs: str = "logits"
    ) -> None:
        self._outputs = Outputs(as_predictor(predictor), outputs)
        self.defence = defence

    def predict(self, images: Images) -> Responses:
        """Logits whose softmax is the defended response, float32 (N, classes)."""
        logits = self._outputs.logits(images)
        if self.defence.name == "none":
            return logits.astype(np.float32, copy=False)
        return defended_logits(self.defence, images, logits).astype(np.float32)
