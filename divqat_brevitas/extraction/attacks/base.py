"""What all attacks share: the contract, the spending of queries, substitutes, the result.

:class:`PoolAttack` is the base of attacks on a pool of images: a subclass asks the queries; the
base checks the input, lets the learner train the clone and packs the result. Attacks without images
have their own base in :mod:`divqat_brevitas.extraction.attacks.data_free`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import CheckedSettings, InputError, Within
from divqat_brevitas.extraction.arrays import Labels, Responses, check_pool, substream, to_float
from divqat_brevitas.extraction.learners.base import (
    Learner,
    PlainLearner,
    TrainedClone,
    TransferSet,
    WrappingLearner,
    described,
)
from divqat_brevitas.extraction.learners.prior import CorrectedLearner
from divqat_brevitas.extraction.learners.targets import as_probabilities
from divqat_brevitas.extraction.surrogates.networks import check_image_shape
from divqat_brevitas.extraction.surrogates.training import Epoch, OnEpoch, SurrogateTraining
from divqat_brevitas.extraction.victim import BudgetExceededError, Victim
from divqat_brevitas.input_range import UNIT
from divqat_brevitas.short_repr import ShortRepr

QUERY_BATCH = 1000

Round = dict[str, Any]
NO_INDICES: Labels = np.zeros(0, np.int64)


class ImagePool(Protocol):
    """Anything with pool images, such as ``divqat_brevitas.data.QueryPool``."""

    @property
    def images(self) -> NDArray[Any]:
        """uint8 or float32 (N, C, H, W)."""
        ...


@dataclass(frozen=True)
class Result(ShortRepr):
    """The result of an attack.

    Attributes:
        clone: the trained surrogate, in eval mode.
        queries_used: number of queries asked; below the budget if the pool was smaller.
        history: the clone's training, one row an epoch (see ``train_surrogate``).
        rounds: one row a round, for attacks that choose or make queries in rounds.
        indices: positions of the queried images in the pool, in the order asked, int64
            (queries_used,); empty for attacks that make their own images.
        settings: the attack's hyper-parameters and the conditions it met (oracle, defence, budget,
            pool size), as values that JSON can hold.
    """

    clone: nn.Module
    queries_used: int
    history: list[Epoch]
    rounds: list[Round]
    indices: Labels
    settings: dict[str, Any]


class Attack(Protocol):
    """An extraction attack with its hyper-parameters."""

    @property
    def name(self) -> str:
        """The attack's name in results, such as "knockoff-random"."""
        ...

    def run(self, victim: Victim, pool: Any, budget: int | None = None) -> Result:
        """Ask at most ``budget`` queries (None: all that are left) and train a clone.

        ``pool`` holds the attacker's images, an :class:`ImagePool` or an array; for a data-free
        attack it is the (C, H, W) of an image.
        """
        ...


@dataclass(frozen=True)
class Queries(ShortRepr):
    """The queries of an attack on a pool.

    Attributes:
        transfer_set: images with their responses, for the learner.
        indices: see :class:`Result`.
        rounds: see :class:`Result`.
        used: number of queries; None: one for each image of the transfer set.
        settings: further settings for the result.
    """

    transfer_set: TransferSet
    indices: Labels = field(default_factory=NO_INDICES.copy)
    rounds: list[Round] = field(default_factory=list)
    used: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def allowance(victim: Victim, budget: int | None) -> int:
    """The number of queries that an attack may ask.

    Raises:
        BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
        InputError: the victim takes other inputs than images in [0, 1], which attacks ask.
    """
    if victim.input_range not in (None, UNIT):
        raise InputError(
            f"attacks ask images in [0, 1], but this victim takes inputs in {victim.input_range}. "
            "Attack a predictor that scales images of [0, 1] to that range before it calls the "
            "victim's model."
        )
    allowed = victim.remaining if budget is None else budget
    if allowed > victim.remaining or victim.remaining == 0:
        raise BudgetExceededError(
            f"the attack may ask {allowed} queries, but the victim has {victim.remaining} of "
            f"{victim.budget} left. Give the attack a victim of its own."
        )
    return allowed


def ask(victim: Victim, images: NDArray[Any]) -> Responses:
    """Responses to ``images`` (uint8 or float32), on the scale of probabilities, in batches."""
    parts = [
        as_probabilities(victim.query(to_float(images[i : i + QUERY_BATCH])), victim.oracle)
        for i in range(0, len(images), QUERY_BATCH)
    ]
    return np.concatenate(parts)


def clone_seed(seed: int) -> int:
    """The seed of the clone of an attack with ``seed``."""
    return int(substream(seed, "clone").integers(2**31))


@dataclass(frozen=True)
class SeededAttack(CheckedSettings, ABC):
    """A learner, a seed, and the end of every attack.

    Attributes:
        learner: trains the clone; None: a :class:`PlainLearner` with its defaults.
        seed: of everything random in the attack, at least 0.
    """

    learner: Learner | None = None
    seed: Annotated[int, Within(low=0)] = 0

    @property
    @abstractmethod
    def name(self) -> str:
        """The attack's name in results."""

    @property
    def settings(self) -> dict[str, Any]:
        """All fields but the learner, as values that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "learner"}
        return {
            name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for name, value in values.items()
        }

    def clone_learner(self) -> Learner:
        """The learner that trains the clone."""
        return self.learner or PlainLearner()

    def trainer(self) -> Learner:
        """The learner without a correction of its clone.

        For attacks with a training of their own, which end with :meth:`CorrectedLearner.correct`.
        """
        learner = self.clone_learner()
        return learner.base if isinstance(learner, CorrectedLearner) else learner

    def result(
        self, victim: Victim, budget: int, clone: TrainedClone, queries: Queries, **settings: Any
    ) -> Result:
        """Pack the result."""
        learner = described(self.clone_learner())
        if clone.notes:
            learner["notes"] = clone.notes
        conditions = {
            "attack": self.name,
            "oracle": victim.oracle,
            "oracle_options": victim.options,
            "defence": victim.defence,
            "defence_settings": dict(victim.defence_settings),
            "budget": budget,
            "learner": learner,
        }
        used = len(queries.transfer_set.images) if queries.used is None else queries.used
        return Result(
            clone.clone,
            used,
            clone.history,
            queries.rounds,
            queries.indices,
            self.settings | settings | dict(queries.settings) | conditions,
        )


@dataclass(frozen=True)
class PoolAttack(SeededAttack):
    """An attack on a pool of images; subclasses give :meth:`_queries`."""

    def run(
        self,
        victim: Victim,
        pool: ImagePool | NDArray[Any],
        budget: int | None = None,
        on_epoch: OnEpoch = None,
    ) -> Result:
        """Ask the victim and train a clone on its responses.

        Args:
            victim: is asked; its budget limits the attack.
            pool: the attacker's images, uint8 or float32 in [0, 1], (N, C, H, W), at least 2.
            budget: number of queries to ask; None: all that the victim has left. A smaller pool
                is asked once, image by image.
            on_epoch: called with each row of the clone's history.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: a bad pool, fewer than 2 queries, or responses without information.
        """
        return self._run(victim, pool, budget, on_epoch)

    def _run(
        self,
        victim: Victim,
        pool: ImagePool | NDArray[Any],
        budget: int | None,
        on_epoch: OnEpoch,
        **options: Any,
    ) -> Result:
        """Check pool and budget, ask, train; ``options`` go to :meth:`_queries`."""
        images = check_pool(pool if isinstance(pool, np.ndarray) else pool.images)
        check_image_shape(images.shape[1:])
        allowed = allowance(victim, budget)
        count = min(allowed, len(images))
        if count < 2:
            raise InputError(f"a clone needs at least 2 answered queries, but gets {count}.")
        queries = self._queries(victim, images, allowed, **options)
        clone = self._train(images, queries.transfer_set, clone_seed(self.seed), on_epoch)
        return self.result(victim, allowed, clone, queries, pool_images=len(images))

    @abstractmethod
    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask at most ``budget`` queries; images are a checked pool of at least 2."""

    def _train(
        self, images: NDArray[Any], transfer_set: TransferSet, seed: int, on_epoch: OnEpoch
    ) -> TrainedClone:
        """Train the clone; ``images`` are the whole pool."""
        return self.clone_learner().learn(transfer_set, seed, on_epoch)

    def _random(self, images: NDArray[Any], budget: int) -> Labels:
        """Positions of random images, int64, without repetition.

        A smaller budget takes the first of the images that a larger one takes.
        """
        return substream(self.seed, "pool").permutation(len(images))[:budget]


@dataclass(frozen=True, kw_only=True)
class Substitute(CheckedSettings):
    """Settings of the substitutes, each trained from scratch on all responses of earlier rounds.

    The training of a round has a fixed number of steps, not of epochs: few responses get more
    epochs, and all rounds have about the same cost.

    Args:
        surrogate: the network, see :func:`build_surrogate`.
        targets: how training targets are made of the responses, see
            :mod:`divqat_brevitas.extraction.learners.targets`.
        steps: number of steps of gradient descent a round, at least 1, rounded up to whole epochs.
        training: settings of the training.

    Example:
        >>> import numpy as np
        >>> images = np.random.default_rng(0).random((10, 1, 8, 8), np.float32)
        >>> responses = np.eye(2, dtype=np.float32)[[0, 1] * 5]
        >>> clone = Substitute(surrogate="mlp", steps=2).train(images, responses, seed=0, round_=0)
        >>> clone.training
        False
    """

    surrogate: str = "vgg-small"
    targets: str = "soft"
    steps: Annotated[int, Within(low=1)] = 200
    training: SurrogateTraining = field(default_factory=SurrogateTraining)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._learner(1)

    def _learner(self, images: int) -> PlainLearner:
        steps_an_epoch = -(-images // self.training.batch_size)
        return PlainLearner(
            surrogate=self.surrogate,
            targets=self.targets,
            epochs=-(-self.steps // steps_an_epoch),
            training=self.training,
        )

    @classmethod
    def beside(cls, learner: Learner) -> Self:
        """The default settings, in the precision of the learner's training."""
        while isinstance(learner, WrappingLearner):
            learner = learner.base
        if not isinstance(learner, PlainLearner):
            return cls()
        return cls(training=SurrogateTraining(precision=learner.training.precision))

    def train(
        self, images: NDArray[Any], responses: Responses, seed: int, round_: int
    ) -> nn.Module:
        """Train a new clone; returned in eval mode.

        Args:
            images: the queried images, uint8 or float32 in [0, 1], (N, C, H, W), at least 2.
            responses: on the scale of probabilities, float32 (N, classes).
            seed: of the attack.
            round_: index of the round; each round has its own seed.

        Raises:
            InputError: fewer than 2 responses that are not zero.
        """
        own_seed = int(substream(seed, f"substitute {round_}").integers(2**31))
        return self._learner(len(images)).learn(TransferSet(images, responses), own_seed).clone


@dataclass(frozen=True, kw_only=True)
class RoundsAttack(PoolAttack):
    """An attack that starts with random images of a pool and chooses the others in rounds.

    Attributes:
        initial: part of the budget that is asked at random.
        rounds: number of rounds for the rest.
        substitute: settings of the networks that choose.
    """

    initial: Annotated[float, Within(above=0, high=1)] = 0.1
    rounds: Annotated[int, Within(low=1)] = 10
    substitute: Substitute = field(default_factory=Substitute)

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask in rounds; a row has the "queries" so far."""
        count = min(budget, len(images))
        first = max(2, round(self.initial * count))
        asked = self._random(images, first)
        responses = ask(victim, images[asked])
        rounds: list[Round] = [{"queries": first} | self._row(responses, first)]
        sizes = [len(part) for part in np.array_split(np.arange(count - first), self.rounds)]
        for number, size in enumerate(s for s in sizes if s > 0):
            new, row = self._choose(images, asked, responses, size, number, count)
            asked = np.concatenate([asked, new])
            responses = np.concatenate([responses, ask(victim, images[new])])
            rounds.append({"queries": len(asked)} | row | self._row(responses, size))
        return Queries(TransferSet(images[asked], responses), asked, rounds)

    @abstractmethod
    def _choose(
        self,
        images: NDArray[Any],
        asked: Labels,
        responses: Responses,
        size: int,
        number: int,
        total: int,
    ) -> tuple[Labels, Round]:
        """The next ``size`` of ``total`` queries, positions in the pool, and what to record."""

    def _row(self, responses: Responses, size: int) -> Round:
        """What to record of a round's ``size`` responses, the last of all."""
        return {}
