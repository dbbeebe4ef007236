"""Shadow pairs: what a defence makes of responses, seen on networks of the attacker's own.

An attacker that knows the defence runs it at home: on a shadow network trained on whatever data it
has, or on made-up probabilities. Each pair is one defended response and the response behind it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses, check_images, substream, to_float
from divqat_brevitas.extraction.defences.base import Defence
from divqat_brevitas.extraction.learners.targets import as_probabilities
from divqat_brevitas.extraction.query.oracles import make_oracle, softmax
from divqat_brevitas.extraction.query.predictor import Predictor, as_predictor
from divqat_brevitas.short_repr import ShortRepr

_BATCH = 1000


@dataclass(frozen=True)
class ShadowPairs(ShortRepr):
    """Defended and undefended responses of the same queries.

    Attributes:
        defended: as the oracle shows them, on the scale of probabilities, float32 (N, classes).
        undefended: float32 (N, classes).

    Raises:
        InputError: of other shapes, or fewer than 2.
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
    def of_defence(
        cls,
        defence: Defence,
        model: Predictor | nn.Module,
        images: NDArray[Any],
        oracle: str = "soft",
        **options: int,
    ) -> "ShadowPairs":
        """A defence of the responses, run on the attacker's own network and images.

        Args:
            defence: the victim's, built anew by the attacker.
            model: the attacker's shadow network, not the victim.
            images: the attacker's, uint8 or float32 in [0, 1], NCHW.
            oracle: how the victim shows responses.
            **options: of the oracle.
        """
        predictor, show = as_predictor(model), make_oracle(oracle, **options)
        parts = []
        for i in range(0, len(images), _BATCH):
            batch = check_images(to_float(images[i : i + _BATCH]), "shadow images")
            clean = softmax(predictor.predict(batch))
            parts.append((_shown(defence.perturb(batch, clean), show, oracle), clean))
        return cls(*(np.concatenate(side) for side in zip(*parts, strict=True)))

    @classmethod
    def of_models(
        cls,
        defended: Predictor | nn.Module,
        undefended: Predictor | nn.Module,
        images: NDArray[Any],
        oracle: str = "soft",
        **options: int,
    ) -> "ShadowPairs":
        """A defence trained into the weights: two shadow networks, with it and without."""
        show = make_oracle(oracle, **options)
        batch = check_images(to_float(images), "shadow images")
        shown = as_probabilities(show(as_predictor(defended).predict(batch)), oracle)
        return cls(shown, softmax(as_predictor(undefended).predict(batch)))

    @classmethod
    def of_prior(
        cls,
        defence: Defence,
        shape: tuple[int, int, int],
        classes: int,
        count: int = 20_000,
        seed: int = 0,
        concentration: float = 1.0,
        oracle: str = "soft",
        **options: int,
    ) -> "ShadowPairs":
        """A defence that does not look at images, run on Dirichlet draws; needs no network.

        Tang et al. draw from Dirichlet(1/K, …, 1/K): ``concentration`` 1, shared by K classes.
        """
        alpha = np.full(classes, concentration / classes)
        clean = substream(seed, "shadow").dirichlet(alpha, count).astype(np.float32)
        show = make_oracle(oracle, **options)
        parts = []
        for i in range(0, count, _BATCH):
            part = clean[i : i + _BATCH]
            blank = np.zeros((len(part), *shape), np.float32)
            parts.append(_shown(defence.perturb(blank, part), show, oracle))
        return cls(np.concatenate(parts), clean)


def _shown(probabilities: Responses, show: Any, oracle: str) -> Responses:
    """Perturbed probabilities through the oracle, which takes logits: their logarithms."""
    logits = np.log(np.maximum(probabilities, np.float32(1e-30)))
    return as_probabilities(show(logits.astype(np.float32)), oracle)
