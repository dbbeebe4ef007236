"""Copycat CNN: random natural images and the victim's labels alone.

Correia-Silva, Berriel, Badue, de Souza and Oliveira-Santos, "Copycat CNN: Stealing Knowledge by
Persuading Confession with Random Non-Labeled Data", IJCNN 2018, sec. III.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from divqat_brevitas.extraction.arrays import substream
from divqat_brevitas.extraction.attacks.base import ImagePool, Result, ask, deliver, met
from divqat_brevitas.extraction.attacks.pools import check_seed, plan
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.training import Epoch


@dataclass(frozen=True)
class CopycatCNN:
    """Images drawn from the pool without replacement; only the label of each response is kept.

    This is what ART's ``CopycatCNN`` does by default: a random choice of ``nb_stolen`` images,
    the argmax of what the victim shows, a classifier fitted to it. Two differences: a response
    without any mass (from a coarse "rounded" oracle) is left out, where an argmax would call it
    class 0; and the paper fine-tunes a network pretrained on ImageNet, where this clone starts as
    the learner says (``PlainLearner(init=...)`` takes pretrained weights). The images are those
    that KnockoffNets' random strategy asks with the same seed.

    Args:
        learner: makes the clone; it is shown one-hot responses whatever the oracle.
        seed: of everything random in the attack, at least 0.

    Raises:
        InputError: a negative seed.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> attack = CopycatCNN(PlainLearner(surrogate="mlp", epochs=1))
        >>> attack.run(Victim(model, budget=30), pool).queries_used
        30
    """

    learner: Learner = field(default_factory=PlainLearner)
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed, "CopycatCNN")

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "copycat"

    def run(
        self,
        victim: Victim,
        pool: ImagePool | NDArray[Any],
        budget: int | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> Result:
        """Ask the victim and train a clone on its labels.

        Args:
            victim: responses; its budget is what limits the attack.
            pool: the attacker's images, uint8 or float32 in [0, 1], NCHW, at least 2. A pool
                smaller than the budget is asked whole, each image once.
            budget: queries to spend; None spends all that the victim has left.
            on_epoch: called with each row of the history as it is made.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: a bad pool.
        """
        given = plan(victim, pool, budget)
        indices = substream(self.seed, "pool").permutation(len(given.images))[: given.count]
        images = given.images[indices]
        labels = training_targets(ask(victim, images), "argmax")
        settings: dict[str, Any] = {"attack": self.name, "seed": self.seed}
        settings |= met(victim, given.budget) | {"pool_images": len(given.images)}
        return deliver(
            self.learner,
            TransferSet(images, labels),
            seed=self.seed,
            queries_used=given.count,
            settings=settings,
            indices=indices,
            on_epoch=on_epoch,
        )
