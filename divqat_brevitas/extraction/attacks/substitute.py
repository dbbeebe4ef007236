"""Substitutes: clones that an attack trains only to select or make queries."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Responses, substream
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.surrogates.training import SurrogateTraining


@dataclass(frozen=True, kw_only=True)
class Substitute:
    """Settings of the substitutes, each trained from scratch on all responses of earlier rounds.

    The training of a round has a fixed number of steps, not of epochs: few responses get more
    epochs, and all rounds have about the same cost.

    Args:
        surrogate: the network, see :func:`build_surrogate`.
        targets: how training targets are made of the responses, see
            :mod:`divqat_brevitas.extraction.learners.targets`.
        steps: number of steps of gradient descent a round, at least 1, rounded up to whole epochs.
        training: settings of the training.

    Raises:
        InputError: an unknown name, or no step.

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
    steps: int = 200
    training: SurrogateTraining = field(default_factory=SurrogateTraining)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"a substitute is trained for at least 1 step, not {self.steps}.")
        self._learner(1)

    def _learner(self, images: int) -> PlainLearner:
        steps_an_epoch = -(-images // self.training.batch_size)
        return PlainLearner(
            surrogate=self.surrogate,
            targets=self.targets,
            epochs=-(-self.steps // steps_an_epoch),
            training=self.training,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments."""
        return asdict(self)

    @classmethod
    def beside(cls, learner: Learner) -> Self:
        """The default settings, in the precision of the learner's training."""
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
