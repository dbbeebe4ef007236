"""Semi-supervised extraction: the images that were never asked teach the clone as well.

Jagielski, Carlini, Berthelot, Kurakin and Papernot, "High Accuracy and High Fidelity Extraction
of Neural Networks", USENIX Security 2020, sec. 4.2: few responses, and MixMatch on all that the
attacker has.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import substream, to_float
from divqat_brevitas.extraction.attacks.base import ImagePool, Result, ask, clone_seed, met
from divqat_brevitas.extraction.attacks.mixmatch import MixMatch, train_mixmatch
from divqat_brevitas.extraction.attacks.pools import check_seed, plan
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet, described
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.training import Epoch


@dataclass(frozen=True)
class SemiSupervised:
    """Ask a random part of the pool, train on the whole of it with MixMatch.

    The training is the method, so the clone is not the learner's own: surrogate, targets,
    epochs, training and initial weights come from the learner, which must be a
    :class:`PlainLearner`; the loop is :func:`train_mixmatch`, and an epoch of it is a pass over
    the images that were not asked. The images asked are those that KnockoffNets' random strategy
    asks with the same seed. With fewer than 2 images left unasked the whole pool serves as
    unlabelled.

    The gain depends on the network: with 60 responses on digits the default "vgg-small" gains over
    KnockoffNets of as many steps, while "mlp" loses on average, and varies much between seeds.

    Args:
        learner: says what the clone is and how long it is trained.
        seed: of everything random in the attack, at least 0.
        mixmatch: settings of the semi-supervised training.

    Raises:
        InputError: a negative seed, or another kind of learner.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> attack = SemiSupervised(PlainLearner(surrogate="mlp", epochs=1))
        >>> result = attack.run(Victim(model, budget=10), pool)
        >>> result.queries_used, result.settings["unlabelled_images"]
        (10, 30)
    """

    learner: Learner = field(default_factory=PlainLearner)
    seed: int = 0
    mixmatch: MixMatch = field(default_factory=MixMatch)

    def __post_init__(self) -> None:
        check_seed(self.seed, "SemiSupervised")
        self._plain()

    def _plain(self) -> PlainLearner:
        if not isinstance(self.learner, PlainLearner):
            raise InputError(
                f"the semi-supervised attack has a training of its own and cannot take the "
                f"learner {self.learner.name!r}; give it a PlainLearner."
            )
        return self.learner

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "semi-supervised"

    def run(
        self,
        victim: Victim,
        pool: ImagePool | NDArray[Any],
        budget: int | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> Result:
        """Ask the victim and train a clone on answered and unanswered images.

        Args:
            victim: responses; its budget is what limits the attack.
            pool: the attacker's images, uint8 or float32 in [0, 1], NCHW, at least 2; the larger it
                is beyond the budget, the more the attack gains.
            budget: queries to spend; None spends all that the victim has left.
            on_epoch: called with each row of the history as it is made.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: a bad pool, or responses that say nothing.
        """
        given = plan(victim, pool, budget)
        learner = self._plain()
        order = substream(self.seed, "pool").permutation(len(given.images))
        indices, rest = order[: given.count], order[given.count :]
        unlabelled = rest if len(rest) >= 2 else order
        transfer_set = TransferSet(given.images[indices], ask(victim, given.images[indices]))
        seed = clone_seed(self.seed)
        clone = learner.build(transfer_set, seed)
        history = train_mixmatch(
            clone,
            to_float(transfer_set.images),
            training_targets(transfer_set.responses, learner.targets),
            to_float(given.images[unlabelled]),
            epochs=learner.epochs,
            seed=seed,
            training=learner.training,
            settings=self.mixmatch,
            on_epoch=on_epoch,
        )
        settings: dict[str, Any] = {
            "attack": self.name,
            "seed": self.seed,
            "pool_images": len(given.images),
            "unlabelled_images": len(unlabelled),
            "mixmatch": asdict(self.mixmatch),
            "learner": described(learner),
        }
        settings |= met(victim, given.budget)
        return Result(clone, given.count, history, [], indices, settings)
