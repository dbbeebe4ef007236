"""Semi-supervised extraction: the clone is also trained on images without a response.

Jagielski, Carlini, Berthelot, Kurakin and Papernot, "High Accuracy and High Fidelity Extraction
of Neural Networks", USENIX Security 2020, sec. 4.2: few responses, and MixMatch on all images of
the attacker.
"""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Labels, to_float
from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, ask
from divqat_brevitas.extraction.attacks.mixmatch import MixMatch, train_mixmatch
from divqat_brevitas.extraction.learners.base import PlainLearner, TrainedClone, TransferSet
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.training import OnEpoch


@dataclass(frozen=True)
class SemiSupervised(PoolAttack):
    """Asks a random part of the pool and trains on all of it with MixMatch.

    The learner must be a :class:`PlainLearner`: it defines surrogate, targets, epochs, training and
    initial weights. The training loop is :func:`train_mixmatch`; one epoch is a pass over the
    images that were not asked. The queries are those of KnockoffNets' random strategy with the same
    seed. If fewer than 2 images are left, the complete pool is used as unlabelled images.

    The gain depends on the network: with 60 responses on digits the default "vgg-small" is better
    than KnockoffNets with as many steps, while "mlp" is worse on average and varies between seeds.

    Args:
        learner: defines the clone and its training.
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

    mixmatch: MixMatch = field(default_factory=MixMatch)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clone_learner()

    def clone_learner(self) -> PlainLearner:
        """The learner, which must be a :class:`PlainLearner`."""
        learner = super().clone_learner()
        if not isinstance(learner, PlainLearner):
            raise InputError(
                f"the semi-supervised attack has a training of its own and cannot take the "
                f"learner {learner.name!r}; give it a PlainLearner."
            )
        return learner

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "semi-supervised"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        indices = self._random(images, budget)
        transfer_set = TransferSet(images[indices], ask(victim, images[indices]))
        unlabelled = len(self._unlabelled(images, len(indices)))
        return Queries(transfer_set, indices, settings={"unlabelled_images": unlabelled})

    def _unlabelled(self, images: NDArray[Any], queries: int) -> Labels:
        """Positions of the images that are not asked, or of all where fewer than 2 are left."""
        order = self._random(images, len(images))
        return order[queries:] if len(images) - queries >= 2 else order

    def _train(
        self,
        images: NDArray[Any],
        transfer_set: TransferSet,
        seed: int,
        on_epoch: OnEpoch,
    ) -> TrainedClone:
        learner = self.clone_learner()
        clone = learner.build(transfer_set, seed)
        history = train_mixmatch(
            clone,
            to_float(transfer_set.images),
            training_targets(transfer_set.responses, learner.targets),
            to_float(images[self._unlabelled(images, len(transfer_set.images))]),
            epochs=learner.epochs,
            seed=seed,
            training=learner.training,
            settings=self.mixmatch,
            on_epoch=on_epoch,
        )
        return TrainedClone(clone, history)
