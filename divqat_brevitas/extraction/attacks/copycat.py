"""Copycat CNN: random natural images and the victim's labels.

Correia-Silva, Berriel, Badue, de Souza and Oliveira-Santos, "Copycat CNN: Stealing Knowledge by
Persuading Confession with Random Non-Labeled Data", IJCNN 2018, sec. III.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, ask
from divqat_brevitas.extraction.learners.base import TransferSet
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.query.victim import Victim


@dataclass(frozen=True)
class CopycatCNN(PoolAttack):
    """Draws images from the pool without replacement and uses only the label of each response.

    ART's ``CopycatCNN`` does the same by default: a random choice of ``nb_stolen`` images, the
    argmax of what the victim shows, a classifier fitted to it. There are two differences. A
    response without any mass (from a coarse "rounded" oracle) is left out, where an argmax would
    call it class 0. The paper fine-tunes a network pretrained on ImageNet; this clone starts as the
    learner defines (``PlainLearner(init=...)`` takes pretrained weights). The images are those that
    KnockoffNets' random strategy asks with the same seed.

    Args:
        learner: trains the clone on one-hot responses, whatever the oracle.
        seed: of everything random in the attack, at least 0.

    Raises:
        InputError: a negative seed.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> attack = CopycatCNN(PlainLearner(surrogate="mlp", epochs=1))
        >>> attack.run(Victim(model, budget=30), pool).queries_used
        30
    """

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "copycat"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        indices = self._random(images, budget)
        labels = training_targets(ask(victim, images[indices]), "argmax")
        return Queries(TransferSet(images[indices], labels), indices)
