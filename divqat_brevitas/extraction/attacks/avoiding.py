"""Avoiding rejection: a detector learns from the responses which images the victim rejects.

Aimed at defences that give out-of-distribution queries a worthless response, and at detectors that
count such queries. The attacker sees a rejection as a response without information, as a known
class for rejected images, or as what :func:`find_ood_targets` marks: one class far more frequent
than the others, or one repeated profile. It is the adaptive attack that a reject output invites
(Tramèr, Carlini, Brendel and Mądry, "On Adaptive Attacks to Adversarial Example Defenses", NeurIPS
2020); the rounds are those of ActiveThief (Pal et al., AAAI 2020). No paper has it in this form.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import Within
from divqat_brevitas.extraction.arrays import Labels, Responses, substream, to_float
from divqat_brevitas.extraction.attacks.base import Round, RoundsAttack
from divqat_brevitas.extraction.learners.filtered import find_ood_targets
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import TorchPredictor

_SEEN = 5
"""Responses of each kind that a detector needs."""


@dataclass(frozen=True)
class RejectionAvoider(RoundsAttack):
    """Asks in rounds the images of a pool that a detector expects to be accepted.

    The detector is a network with two outputs, trained from scratch in each round on all queried
    images. Until both kinds of responses were seen five times, images are random. The clone is
    trained on all responses; the learner "filtered" leaves the rejected ones out. A row of
    ``Result.rounds`` has the "queries" so far and the share of "rejected" ones among those of the
    round.

    Args:
        learner: trains the clone.
        seed: of everything random in the attack.
        initial: part of the budget that is asked at random.
        rounds: number of rounds for the rest.
        explore: part of a round that is asked at random.
        reject_class: a class that is known to mean rejected; None: no such class.
        excess: see :func:`find_ood_targets`; smaller than its default, since an honest class that
            is avoided only balances the labels.
        substitute: settings of the detector.

    Example:
        >>> from torch import nn
        >>> from divqat_brevitas.extraction import PlainLearner, Substitute, Victim
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((60, 1, 8, 8), np.float32)
        >>> fast = Substitute(surrogate="mlp", steps=2)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> attack = RejectionAvoider(learner, rounds=2, substitute=fast)
        >>> [round_["queries"] for round_ in attack.run(Victim(model, budget=40), pool).rounds]
        [8, 24, 40]
    """

    initial: Annotated[float, Within(above=0, high=1)] = 0.2
    rounds: Annotated[int, Within(low=1)] = 5
    explore: Annotated[float, Within(0, 1)] = 0.1
    reject_class: Annotated[int | None, Within(low=0)] = None
    excess: Annotated[float, Within(above=1)] = 3.0

    name = "avoiding"

    def rejected(self, responses: Responses) -> NDArray[np.bool_]:
        """Mark the responses that look like rejections, bool (N,).

        Example:
            >>> responses = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
            >>> RejectionAvoider(reject_class=2).rejected(responses).tolist()
            [True, False, True]
        """
        if self.reject_class is None:
            marked = find_ood_targets(responses, self.excess)
        else:
            marked = responses.argmax(axis=1) == self.reject_class
        marked[~responses.any(axis=1)] = True
        return marked

    def _row(self, responses: Responses, size: int) -> Round:
        """The share of "rejected" responses, judged by all: what is frequent shows better."""
        return {"rejected": float(self.rejected(responses)[-size:].mean())}

    def _choose(
        self,
        images: NDArray[Any],
        asked: Labels,
        responses: Responses,
        size: int,
        number: int,
        total: int,
    ) -> tuple[Labels, Round]:
        rejected = self.rejected(responses)
        left = np.setdiff1d(np.arange(len(images)), asked)
        rng = substream(self.seed, f"avoiding {number}")
        order = rng.permutation(len(left))
        if min(rejected.sum(), (~rejected).sum()) >= _SEEN:
            kinds = np.eye(2, dtype=np.float32)[rejected.astype(np.int64)]
            detector = self.substitute.train(images[asked], kinds, self.seed, number)
            odds = softmax(TorchPredictor(detector).predict(to_float(images[left])))[:, 1]
            random = round(self.explore * size)
            rest = order[random:]
            best = rest[np.argsort(odds[rest], kind="stable")[: size - random]]
            order = np.concatenate([order[:random], best])
        return left[order[:size]], {}
