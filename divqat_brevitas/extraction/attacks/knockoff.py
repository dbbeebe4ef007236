"""KnockoffNets: clone a victim by asking it about images the attacker already has.

Orekondy, Schiele and Fritz, "Knockoff Nets: Stealing Functionality of Black-Box Models",
CVPR 2019, sec. 4.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.arrays import Labels, check_labels, check_pool, substream
from divqat_brevitas.extraction.attacks.adaptive import AdaptiveSampling, sample_adaptively
from divqat_brevitas.extraction.attacks.bandit import group_images
from divqat_brevitas.extraction.attacks.base import (
    ImagePool,
    PoolQueries,
    Result,
    allowance,
    ask,
    deliver,
    met,
)
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.networks import check_image_shape
from divqat_brevitas.extraction.surrogates.training import Epoch, SurrogateTraining

STRATEGIES = ("random", "adaptive")


@dataclass(frozen=True)
class KnockoffNets:
    """The attack's hyper-parameters; :meth:`run` takes the data.

    The random strategy draws images from the pool without replacement; a smaller budget asks the
    first of the images that a larger one asks. The adaptive strategy learns which groups of the
    pool pay. Either way the clone is trained from scratch on all responses, so that strategies
    differ in the images asked and in nothing else.

    Args:
        surrogate: the clone's network, see :func:`build_surrogate`.
        seed: of everything random in the attack, at least 0.
        strategy: "random" or "adaptive".
        targets: what becomes of the responses: "soft", "argmax" or "smooth".
        epochs: of the clone's training.
        training: how it is trained.
        sampling: settings of the adaptive strategy.
        learner: makes the clone instead of surrogate, targets, epochs and training; these then
            only shape the clone that the adaptive strategy trains along the way.

    Raises:
        InputError: an unknown name or a number out of range.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> result = KnockoffNets(surrogate="mlp", epochs=1).run(Victim(model, budget=30), pool)
        >>> result.queries_used
        30
    """

    surrogate: str = "vgg-small"
    seed: int = 0
    strategy: str = "random"
    targets: str = "soft"
    epochs: int = 20
    training: SurrogateTraining = field(default_factory=SurrogateTraining)
    sampling: AdaptiveSampling = field(default_factory=AdaptiveSampling)
    learner: Learner | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise unknown_name("query strategy", self.strategy, STRATEGIES)
        if self.seed < 0:
            raise InputError(f"KnockoffNets needs a seed of at least 0, but got {self.seed}.")
        self._plain()

    def _plain(self) -> PlainLearner:
        return PlainLearner(
            surrogate=self.surrogate,
            targets=self.targets,
            epochs=self.epochs,
            training=self.training,
        )

    @property
    def name(self) -> str:
        """The attack's name in results: "knockoff-random" or "knockoff-adaptive"."""
        return f"knockoff-{self.strategy}"

    def run(
        self,
        victim: Victim,
        pool: ImagePool | NDArray[Any],
        budget: int | None = None,
        labels: NDArray[Any] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> Result:
        """Ask the victim and train a clone on its responses.

        Args:
            victim: responses; its budget is what limits the attack.
            pool: the attacker's images, uint8 or float32 in [0, 1], NCHW, at least 2. A pool
                smaller than the budget is asked whole, each image once.
            budget: queries to spend; None spends all that the victim has left.
            labels: classes of the pool's images (N,), the adaptive strategy's actions; without
                them images are grouped by k-means. The random strategy does not look at them.
            on_epoch: called with each row of the history as it is made.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: a bad pool or bad labels.
        """
        images = check_pool(pool if isinstance(pool, np.ndarray) else pool.images)
        check_image_shape(images.shape[1:])
        actions = None if labels is None else check_labels(labels, len(images), "pool labels")
        budget = allowance(victim, budget)
        count = min(budget, len(images))
        if count < 2:
            raise InputError(f"a clone needs at least 2 answered queries, but gets {count}.")
        transfer = self._ask(victim, images, actions, count)
        settings: dict[str, Any] = {"attack": self.name, "seed": self.seed}
        settings |= met(victim, budget) | {"pool_images": len(images)}
        if self.strategy == "adaptive":
            settings["sampling"] = asdict(self.sampling)
            settings["actions"] = "k-means" if labels is None else "labels"
        return deliver(
            self.learner or self._plain(),
            TransferSet(images[transfer.indices], transfer.responses),
            seed=self.seed,
            queries_used=count,
            settings=settings,
            indices=transfer.indices,
            rounds=transfer.rounds,
            on_epoch=on_epoch,
        )

    def _ask(
        self, victim: Victim, images: NDArray[Any], labels: Labels | None, count: int
    ) -> PoolQueries:
        if self.strategy == "adaptive":
            if labels is None:
                rng = substream(self.seed, "groups")
                labels = group_images(images, self.sampling.groups, rng)
            return sample_adaptively(
                victim,
                images,
                labels,
                count,
                surrogate=self.surrogate,
                targets=self.targets,
                seed=self.seed,
                settings=self.sampling,
            )
        indices = substream(self.seed, "pool").permutation(len(images))[:count]
        return PoolQueries(indices, ask(victim, images[indices]))
