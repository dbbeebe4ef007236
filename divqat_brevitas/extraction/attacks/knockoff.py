"""KnockoffNets: train a clone on the victim's responses to images that the attacker has.

Orekondy, Schiele and Fritz, "Knockoff Nets: Stealing Functionality of Black-Box Models",
CVPR 2019, sec. 4.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import unknown_name
from divqat_brevitas.extraction.arrays import check_labels, check_pool, substream
from divqat_brevitas.extraction.attacks.adaptive import AdaptiveSampling, sample_adaptively
from divqat_brevitas.extraction.attacks.bandit import group_images
from divqat_brevitas.extraction.attacks.base import (
    ImagePool,
    PoolAttack,
    Queries,
    Result,
    ask,
)
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.training import OnEpoch, SurrogateTraining

STRATEGIES = ("random", "adaptive")


@dataclass(frozen=True)
class KnockoffNets(PoolAttack):
    """The attack's hyper-parameters; :meth:`run` takes victim and pool.

    The random strategy draws images from the pool without replacement; a smaller budget asks the
    first of the images that a larger one asks. The adaptive strategy learns which groups of the
    pool give useful responses. With both strategies the clone is trained from scratch on all
    responses: the strategies differ only in the queries.

    Args:
        learner: trains the clone; None: a :class:`PlainLearner` of surrogate, targets, epochs and
            training. With a learner, surrogate and targets only define the clone that the adaptive
            strategy trains for its rewards.
        seed: of everything random in the attack, at least 0.
        surrogate: the clone's network, see :func:`build_surrogate`.
        strategy: "random" or "adaptive".
        targets: how training targets are made of the responses, such as "soft" or "argmax".
        epochs: number of epochs of the clone's training.
        training: settings of the clone's training.
        sampling: settings of the adaptive strategy.

    Raises:
        InputError: an unknown name or a number out of range.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> result = KnockoffNets(surrogate="mlp", epochs=1).run(Victim(model, budget=30), pool)
        >>> result.queries_used
        30
    """

    surrogate: str = "vgg-small"
    strategy: str = "random"
    targets: str = "soft"
    epochs: int = 20
    training: SurrogateTraining = field(default_factory=SurrogateTraining)
    sampling: AdaptiveSampling = field(default_factory=AdaptiveSampling)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy not in STRATEGIES:
            raise unknown_name("query strategy", self.strategy, STRATEGIES)
        self._plain()

    def _plain(self) -> PlainLearner:
        return PlainLearner(
            surrogate=self.surrogate,
            targets=self.targets,
            epochs=self.epochs,
            training=self.training,
        )

    def clone_learner(self) -> Learner:
        """The given learner, or a plain one of this attack's own settings."""
        return self.learner or self._plain()

    @property
    def settings(self) -> dict[str, Any]:
        """The seed and, for the adaptive strategy, its sampling; the learner has the rest."""
        sampling = {"sampling": asdict(self.sampling)} if self.strategy == "adaptive" else {}
        return {"seed": self.seed} | sampling

    @property
    def name(self) -> str:
        """The name in results: "knockoff-random" or "knockoff-adaptive"."""
        return f"knockoff-{self.strategy}"

    def run(
        self,
        victim: Victim,
        pool: ImagePool | NDArray[Any],
        budget: int | None = None,
        on_epoch: OnEpoch = None,
        labels: NDArray[Any] | None = None,
    ) -> Result:
        """Ask the victim and train a clone on its responses.

        Args:
            victim: see :meth:`PoolAttack.run`.
            pool: see :meth:`PoolAttack.run`.
            budget: see :meth:`PoolAttack.run`.
            on_epoch: see :meth:`PoolAttack.run`.
            labels: classes of the pool's images (N,), the actions of the adaptive strategy;
                without them k-means groups the images. The random strategy ignores them.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: a bad pool or bad labels.
        """
        if labels is not None:
            images = check_pool(pool if isinstance(pool, np.ndarray) else pool.images)
            labels = check_labels(labels, len(images), "pool labels")
        return self._run(victim, pool, budget, on_epoch, labels=labels)

    def _queries(
        self,
        victim: Victim,
        images: NDArray[Any],
        budget: int,
        labels: NDArray[Any] | None = None,
    ) -> Queries:
        if self.strategy == "random":
            indices = self._random(images, budget)
            return Queries(TransferSet(images[indices], ask(victim, images[indices])), indices)
        actions = "k-means" if labels is None else "labels"
        if labels is None:
            labels = group_images(images, self.sampling.groups, substream(self.seed, "groups"))
        indices, responses, rounds = sample_adaptively(
            victim,
            images,
            labels,
            min(budget, len(images)),
            surrogate=self.surrogate,
            targets=self.targets,
            seed=self.seed,
            settings=self.sampling,
        )
        transfer_set = TransferSet(images[indices], responses)
        return Queries(transfer_set, indices, rounds, settings={"actions": actions})
