"""A victim for ART, the Adversarial Robustness Toolbox: `pip install 'divqat[art]'`.

ART's own KnockoffNets, CopycatCNN, HopSkipJump, ... then work on it, and the victim counts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, ToolMissingError
from divqat_brevitas.extraction.arrays import Responses
from divqat_brevitas.extraction.victim import Victim

try:
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork
except ImportError as e:
    raise ToolMissingError(
        "ART is not installed. Get it with: pip install 'divqat[art]' "
        "(the package is called adversarial-robustness-toolbox)."
    ) from e


class VictimClassifier(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
    """ART's black-box classifier over a victim; made by :func:`as_art_classifier`.

    Attributes:
        victim: is asked and counts; ``victim.ledger`` has a row for every batch that ART asked.
    """

    def __init__(self, victim: Victim, input_shape: tuple[int, int, int], classes: int) -> None:
        self.victim = victim
        super().__init__(
            self._ask, input_shape, classes, channels_first=True, clip_values=(0.0, 1.0)
        )

    def predict(
        self, x: NDArray[Any], batch_size: int = 128, training_mode: bool = False, **kwargs: Any
    ) -> Responses:
        """The oracle's responses, float32 (N, classes), to images (N, C, H, W) in [0, 1].

        Asked in batches of ``batch_size``; every image is one query.

        Raises:
            BudgetExceededError: fewer than N queries are left; no batch was asked.
            InputError: images of another shape, or not in [0, 1].
        """
        if np.shape(x)[1:] != self.input_shape:
            raise InputError(
                f"ART asks images of shape {np.shape(x)[1:]}, but this classifier was made for "
                f"{self.input_shape}, channels first."
            )
        if len(x) > self.victim.remaining:
            # Refused by the victim itself, before the first batch is spent.
            self._ask(np.asarray(x, np.float32))
        responses: Responses = super().predict(x, batch_size=batch_size, **kwargs)
        return responses

    def _ask(self, images: NDArray[Any]) -> Responses:
        responses = self.victim.query(np.ascontiguousarray(images, np.float32))
        if responses.shape[1] != self.nb_classes:
            raise InputError(
                f"the victim answers with {responses.shape[1]} classes, but the ART classifier was "
                f"made for {self.nb_classes}: as_art_classifier(..., classes={responses.shape[1]})."
            )
        return responses
