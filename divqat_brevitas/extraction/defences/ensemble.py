"""Ensemble of diverse models (EDM): a secret hash of the image picks which network answers.

Kariyappa, Prakash and Qureshi, "Protecting DNNs from Theft using an Ensemble of Diverse Models",
ICLR 2021, sec. 4: networks that agree on the victim's own data and disagree elsewhere give
responses that jump from image to image where an attacker asks. The choice is a function of the
image, so asking again gives the same response.

The hash here is a keyed BLAKE2b of the image as 8-bit pixels: a change of one grey value in one
pixel draws anew, a change below that does not. The networks come from outside; trained alike but
for the seed they disagree less than the paper's, which are trained to.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses, check_logits
from divqat_brevitas.extraction.defences.base import distributions
from divqat_brevitas.extraction.query.oracles import softmax
from divqat_brevitas.extraction.query.predictor import Predictor, as_predictor


class EnsembleOfDiverseModels:
    """The defence of Kariyappa et al. 2021; the victim's own network is member 0.

    In a composition it stands first: the responses of other members do not pass through the parts
    before it.

    Args:
        models: the further members, predictors or torch modules with the victim's classes.
        secret: key of the hash.

    Raises:
        InputError: no further member, or one that cannot predict.

    Example:
        >>> other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> EnsembleOfDiverseModels([other]).name
        'ensemble:2'
    """

    def __init__(self, models: Sequence[Predictor | nn.Module], secret: int = 0) -> None:
        if not models:
            raise InputError("an ensemble needs at least one network in addition to the victim's.")
        self._models = [as_predictor(model) for model in models]
        self.secret = secret

    @property
    def name(self) -> str:
        """Such as "ensemble:3", with the number of members."""
        return f"ensemble:{len(self._models) + 1}"

    @property
    def settings(self) -> dict[str, Any]:
        """The number of ``members`` and the ``secret``."""
        return {"members": len(self._models) + 1, "secret": self.secret}

    def members(self, images: Images) -> NDArray[np.int64]:
        """The member that answers each image, int64 (N,): 0 is the victim's own network."""
        key = str(self.secret).encode()[:64]
        pixels = np.round(images * np.float32(255)).astype(np.uint8)
        digests = [
            hashlib.blake2b(image.tobytes(), digest_size=8, key=key).digest() for image in pixels
        ]
        count = len(self._models) + 1
        return np.array([int.from_bytes(d, "big") % count for d in digests], np.int64)

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """The chosen members' probabilities, float32 (N, classes).

        Raises:
            InputError: a member with another number of classes.
        """
        members = self.members(images)
        responses = probabilities.astype(np.float64)
        for number, model in enumerate(self._models, start=1):
            rows = members == number
            if not rows.any():
                continue
            what = f"the predictions of ensemble member {number}"
            logits = check_logits(model.predict(images[rows]), int(rows.sum()), what)
            if logits.shape[1] != probabilities.shape[1]:
                raise InputError(
                    f"ensemble member {number} has {logits.shape[1]} classes, but the victim "
                    f"{probabilities.shape[1]}."
                )
            responses[rows] = softmax(logits)
        return distributions(responses)
