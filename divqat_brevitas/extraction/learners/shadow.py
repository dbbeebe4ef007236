"""Shadow pairs: what a defence makes of responses, on the attacker's own networks.

An attacker that knows the defence applies it to a shadow network, trained on the data that it has.
Each pair is one defended response and the undefended response to the same image.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses, check_images, to_float
from divqat_brevitas.extraction.learners.targets import as_probabilities
from divqat_brevitas.extraction.query.oracles import make_oracle, softmax
from divqat_brevitas.extraction.query.predictor import Predictor, as_predictor
from divqat_brevitas.short_repr import ShortRepr


@dataclass(frozen=True)
class ShadowPairs(ShortRepr):
    """Defended and undefended responses of the same queries.

    Attributes:
        defended: as the oracle shows them, on the scale of probabilities, float32 (N, classes).
        undefended: float32 (N, classes).

    Raises:
        InputError: arrays of other shapes, or fewer than 2 rows.
    """

    defended: Responses
    undefended: Responses

    def __post_init__(self) -> None:
        if self.defended.ndim != 2 or self.defended.shape != self.undefended.shape:
            raise InputError(
                f"shadow pairs need two arrays (N, classes) of one shape, but got "
                f"{self.defended.shape} and {self.undefended.shape}."
            )
        if len(self.defended) < 2:
            raise InputError("shadow pairs need at least 2 rows.")

    @classmethod
    def of_models(
        cls,
        defended: Predictor | nn.Module,
        undefended: Predictor | nn.Module,
        images: NDArray[Any],
        oracle: str = "soft",
        **options: int,
    ) -> "ShadowPairs":
        """The responses of two shadow networks to the same images.

        Args:
            defended: a network with the defence in its weights, or the undefended one behind a
                defence of the responses (``DefendedPredictor``).
            undefended: a network without the defence.
            images: the attacker's images, uint8 or float32 in [0, 1], (N, C, H, W).
            oracle: how the victim shows responses.
            **options: of the oracle.

        Raises:
            InputError: bad images or an unknown oracle.
        """
        show = make_oracle(oracle, **options)
        batch = check_images(to_float(images), "shadow images")
        responses = as_probabilities(show(as_predictor(defended).predict(batch)), oracle)
        return cls(responses, softmax(as_predictor(undefended).predict(batch)))
