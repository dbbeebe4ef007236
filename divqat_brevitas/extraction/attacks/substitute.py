"""The clone that an attack trains along the way: it steers the queries and is thrown away."""

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
    """How the clones along the way are trained, each from scratch on all responses so far.

    The work of a round is counted in steps, not epochs: few responses get more epochs, and no round
    costs much more than another.

    Args:
        surrogate: its network, see :func:`build_surrogate`.
        targets: of the responses, see :mod:`divqat_brevitas.extraction.learners.targets`.
        steps: of gradient descent a round, at least 1; whole epochs, so slightly more.
        training: how it is trained.

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
        """All of the arguments."""
        return asdict(self)

    @classmethod
    def beside(cls, learner: Learner) -> Self:
        """The default one, computed in the precision of the learner's own training."""
        if not isinstance(learner, PlainLearner):
            return cls()
        return cls(training=SurrogateTraining(precision=learner.training.precision))

    def train(
        self, images: NDArray[Any], responses: Responses, seed: int, round_: int
    ) -> nn.Module:
        """A fresh clone, in eval mode.

        Args:
            images: that were asked so far, uint8 or float32 in [0, 1], (N, C, H, W), at least 2.
            responses: on the scale of probabilities, float32 (N, classes).
            seed: of the attack.
            round_: index of the round; each has a seed of its own.

        Raises:
            InputError: fewer than 2 responses that say anything.
        """
        own_seed = int(substream(seed, f"substitute {round_}").integers(2**31))
        return self._learner(len(images)).learn(TransferSet(images, responses), own_seed).clone
