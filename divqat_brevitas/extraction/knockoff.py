"""KnockoffNets: clone a victim by asking it about images the thief already has.

Orekondy, Schiele and Fritz, "Knockoff Nets: Stealing Functionality of Black-Box Models",
CVPR 2019, sec. 4.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.extraction.adaptive import AdaptiveSampling, TransferSet, sample_adaptively
from divqat_brevitas.extraction.arrays import Labels, check_labels, check_pool, substream, to_float
from divqat_brevitas.extraction.bandit import group_images
from divqat_brevitas.extraction.surrogates import SURROGATES, build_surrogate, check_image_shape
from divqat_brevitas.extraction.training import Epoch, SurrogateTraining, train_surrogate
from divqat_brevitas.extraction.treatments import TREATMENTS, as_probabilities, treat
from divqat_brevitas.extraction.victim import BudgetExceededError, Victim

STRATEGIES = ("random", "adaptive")
QUERY_BATCH = 1000


class ImagePool(Protocol):
    """Anything with pool images, such as ``divqat_brevitas.data.QueryPool``."""

    @property
    def images(self) -> NDArray[Any]:
        """uint8 or float32 (N, C, H, W)."""
        ...


@dataclass(frozen=True)
class Result:
    """What an attack brought home.

    Attributes:
        clone: the trained surrogate, in eval mode.
        queries_used: queries this attack asked; fewer than its budget if the pool was smaller.
        history: the clone's training, a row an epoch (see ``train_surrogate``).
        rounds: the adaptive strategy's rounds; empty for the random one.
        indices: of the asked images in the pool, in the order asked, int64 (queries_used,).
        settings: the attack's hyper-parameters and what it met (oracle, budget, pool size, where
            the adaptive actions came from); plain values that JSON can hold.
    """

    clone: nn.Module
    queries_used: int
    history: list[Epoch]
    rounds: list[dict[str, Any]]
    indices: Labels
    settings: dict[str, Any]


@dataclass(frozen=True)
class KnockoffNets:
    """The attack's hyper-parameters; :meth:`run` takes the data.

    The random strategy draws images from the pool without replacement; a smaller budget asks the
    first of the images that a larger one asks. The adaptive strategy learns which groups of the
    pool pay. Either way the clone is trained from scratch on all answers, so that strategies
    differ in the images asked and in nothing else.

    Args:
        surrogate: the clone's network, see :func:`build_surrogate`.
        seed: of everything random in the attack, at least 0.
        strategy: "random" or "adaptive".
        treatment: what becomes of the answers: "soft", "argmax" or "smooth".
        epochs: of the clone's training.
        training: how it is trained.
        sampling: settings of the adaptive strategy.

    Raises:
        InputError: an unknown name or a number out of range.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> result = KnockoffNets(surrogate="mlp", epochs=1).run(Victim(model, budget=30), pool)
        >>> result.queries_used
        30
    """

    surrogate: str = "vgg-small"
    seed: int = 0
    strategy: str = "random"
    treatment: str = "soft"
    epochs: int = 20
    training: SurrogateTraining = field(default_factory=SurrogateTraining)
    sampling: AdaptiveSampling = field(default_factory=AdaptiveSampling)

    def __post_init__(self) -> None:
        if self.surrogate not in SURROGATES:
            raise unknown_name("surrogate", self.surrogate, SURROGATES)
        if self.strategy not in STRATEGIES:
            raise unknown_name("query strategy", self.strategy, STRATEGIES)
        if self.treatment not in TREATMENTS:
            raise unknown_name("label treatment", self.treatment, TREATMENTS)
        if self.seed < 0 or self.epochs < 1:
            raise InputError(
                f"KnockoffNets needs a seed of at least 0 and at least 1 epoch, but got "
                f"seed={self.seed} and epochs={self.epochs}."
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
        """Ask the victim and train a clone on its answers.

        Args:
            victim: answers; its budget is what limits the attack.
            pool: the thief's images, uint8 or float32 in [0, 1], NCHW, at least 2. A pool smaller
                than the budget is asked whole, each image once.
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
        budget = self._budget(victim, budget)
        count = min(budget, len(images))
        if count < 2:
            raise InputError(f"a clone needs at least 2 answered queries, but gets {count}.")

        transfer = self._ask(victim, images, actions, count)
        seed = int(substream(self.seed, "clone").integers(2**31))
        _, channels, height, width = images.shape
        classes = transfer.answers.shape[1]
        clone = build_surrogate(self.surrogate, (channels, height, width), classes, seed)
        history = train_surrogate(
            clone,
            to_float(images[transfer.indices]),
            treat(transfer.answers, self.treatment),
            epochs=self.epochs,
            seed=seed,
            settings=self.training,
            on_epoch=on_epoch,
        )
        settings = asdict(self) | {
            "oracle": victim.oracle,
            "oracle_options": victim.options,
            "defence": victim.defence,
            "budget": budget,
            "pool_images": len(images),
            "actions": "k-means" if labels is None else "labels",
        }
        if self.strategy != "adaptive":
            del settings["sampling"], settings["actions"]
        return Result(
            clone, len(transfer.indices), history, transfer.rounds, transfer.indices, settings
        )

    def _budget(self, victim: Victim, budget: int | None) -> int:
        wanted = victim.remaining if budget is None else budget
        if wanted > victim.remaining or victim.remaining == 0:
            raise BudgetExceededError(
                f"the attack may ask {wanted} queries, but the victim has {victim.remaining} of "
                f"{victim.budget} left. Give the attack a victim of its own."
            )
        return wanted

    def _ask(
        self, victim: Victim, images: NDArray[Any], labels: Labels | None, count: int
    ) -> TransferSet:
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
                treatment=self.treatment,
                seed=self.seed,
                settings=self.sampling,
            )
        indices = substream(self.seed, "pool").permutation(len(images))[:count]
        answers = [
            as_probabilities(victim.query(to_float(images[part])), victim.oracle)
            for part in np.split(indices, range(QUERY_BATCH, count, QUERY_BATCH))
        ]
        return TransferSet(indices, np.concatenate(answers))
