"""Attacks that ask random images of a pool, and KnockoffNets' adaptive strategy.

Orekondy, Schiele and Fritz, "Knockoff Nets: Stealing Functionality of Black-Box Models", CVPR 2019,
sec. 4; Correia-Silva, Berriel, Badue, de Souza and Oliveira-Santos, "Copycat CNN: Stealing
Knowledge by Persuading Confession with Random Non-Labeled Data", IJCNN 2018, sec. III.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError, OneOf, Within
from divqat_brevitas.extraction.arrays import Images, check_labels, check_pool, substream, to_float
from divqat_brevitas.extraction.attacks.adaptive import (
    AdaptiveSampling,
    group_images,
    sample_adaptively,
)
from divqat_brevitas.extraction.attacks.base import ImagePool, PoolAttack, Queries, Result, ask
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.surrogates.training import OnEpoch, SurrogateTraining
from divqat_brevitas.extraction.victim import Victim
from divqat_brevitas.training.kernels import random_flip, random_shift

STRATEGIES = ("random", "adaptive")


@dataclass(frozen=True)
class KnockoffNets(PoolAttack):
    """The attack's hyper-parameters; :meth:`run` takes victim and pool.

    The random strategy draws images from the pool without replacement; a smaller budget asks the
    first of the images that a larger one asks. The adaptive strategy learns which groups of the
    pool give useful responses. Both train the clone from scratch on all responses.

    Args:
        learner: trains the clone; None: a :class:`PlainLearner` of surrogate, targets, epochs and
            training. With a learner, surrogate and targets only define the clone that the adaptive
            strategy trains for its rewards.
        seed: of everything random in the attack.
        surrogate: the clone's network, see :func:`build_surrogate`.
        strategy: "random" or "adaptive".
        targets: how training targets are made of the responses, such as "soft" or "argmax".
        epochs: number of epochs of the clone's training.
        training: settings of the clone's training.
        sampling: settings of the adaptive strategy.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> result = KnockoffNets(surrogate="mlp", epochs=1).run(Victim(model, budget=30), pool)
        >>> result.queries_used
        30
    """

    surrogate: str = "vgg-small"
    strategy: Annotated[str, OneOf("query strategy", STRATEGIES)] = "random"
    targets: str = "soft"
    epochs: int = 20
    training: SurrogateTraining = field(default_factory=SurrogateTraining)
    sampling: AdaptiveSampling = field(default_factory=AdaptiveSampling)

    def __post_init__(self) -> None:
        super().__post_init__()
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

        The arguments are those of :meth:`PoolAttack.run`, and ``labels``: classes of the pool's
        images (N,), the actions of the adaptive strategy. Without them k-means groups the images.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: a bad pool or bad labels.
        """
        if labels is not None:
            images = check_pool(pool if isinstance(pool, np.ndarray) else pool.images)
            labels = check_labels(labels, len(images), "pool labels")
        return self._run(victim, pool, budget, on_epoch, labels=labels)

    def _queries(
        self, victim: Victim, images: NDArray[Any], budget: int, labels: NDArray[Any] | None = None
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


@dataclass(frozen=True)
class AveragedQueries(PoolAttack):
    """Asks ``copies`` versions of random images of a pool and averages the responses.

    Averages remove the noise of a randomised defence, and partly that of a defence that perturbs
    each image differently, for fewer images of the same budget. A victim may cache its responses to
    exact repeats, but does not recognise changed images. The first version is the image itself; the
    clone is trained on the images themselves. A remainder of the budget below ``copies`` is not
    used.

    Args:
        learner: trains the clone.
        seed: of the selection and the changes.
        copies: number of versions of an image.
        shift: largest shift in pixels, in each direction; zeros fill the border.
        flip: mirror half of the versions; for natural images only.
        noise: standard deviation of Gaussian noise on pixels in [0, 1].

    Example:
        >>> from torch import nn
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> AveragedQueries(learner=learner).run(Victim(model, budget=50), pool).queries_used
        48
    """

    copies: Annotated[int, Within(low=1)] = 3
    shift: Annotated[int, Within(low=0)] = 1
    flip: bool = False
    noise: Annotated[float, Within(0, 1)] = 0.02

    name = "knockoff-averaged"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask all versions of random images; indices name an image once a query."""
        count = min(budget // self.copies, len(images))
        if count < 2:
            raise InputError(
                f"a clone needs at least 2 answered images, but {budget} queries in {self.copies} "
                f"copies of {len(images)} images make {count}."
            )
        indices = self._random(images, count)
        responses = ask(victim, self._versions(to_float(images[indices])))
        averages = responses.reshape(count, self.copies, -1).mean(axis=1, dtype=np.float64)
        return Queries(
            TransferSet(images[indices], averages.astype(np.float32)),
            np.repeat(indices, self.copies),
            used=count * self.copies,
        )

    def _versions(self, images: Images) -> Images:
        """All versions, float32 (N · copies, C, H, W); those of one image are consecutive."""
        rng = substream(self.seed, "versions")
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        versions = [images]
        for _ in range(self.copies - 1):
            changed = random_shift(torch.from_numpy(images), self.shift, generator)
            if self.flip:
                changed = random_flip(changed, generator)
            noise = rng.standard_normal(images.shape, np.float32) * np.float32(self.noise)
            versions.append(np.clip(changed.numpy() + noise, 0, 1))
        return np.stack(versions, axis=1).reshape(-1, *images.shape[1:])


@dataclass(frozen=True)
class CopycatCNN(PoolAttack):
    """Draws images from the pool without replacement and uses only the label of each response.

    ART's ``CopycatCNN`` does the same by default, with two differences: a response without any mass
    (from a coarse "rounded" oracle) is left out here, where an argmax would call it class 0, and
    the paper fine-tunes a network pretrained on ImageNet (``PlainLearner(init=...)`` takes such
    weights). The images are those that KnockoffNets' random strategy asks with the same seed.

    Args:
        learner: trains the clone on one-hot responses, whatever the oracle.
        seed: of everything random in the attack.

    Example:
        >>> from torch import nn
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> attack = CopycatCNN(PlainLearner(surrogate="mlp", epochs=1))
        >>> attack.run(Victim(model, budget=30), pool).queries_used
        30
    """

    name = "copycat"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        indices = self._random(images, budget)
        labels = training_targets(ask(victim, images[indices]), "argmax")
        return Queries(TransferSet(images[indices], labels), indices)
