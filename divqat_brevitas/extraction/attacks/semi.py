"""Semi-supervised extraction: the clone is also trained on images without a response.

Jagielski, Carlini, Berthelot, Kurakin and Papernot, "High Accuracy and High Fidelity Extraction of
Neural Networks", USENIX Security 2020, sec. 4.2: few responses, and MixMatch on all images of the
attacker. MixMatch (Berthelot et al., "MixMatch: A Holistic Approach to Semi-Supervised Learning",
NeurIPS 2019, algorithm 1) guesses labels for the unlabelled images as the mean prediction over
augmentations, sharpens the guesses, mixes all images and labels with one another (MixUp), and
trains with cross-entropy on the labelled and squared error on the unlabelled part.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import CheckedSettings, CheckFailedError, InputError, Within
from divqat_brevitas.extraction.arrays import Images, Labels, Responses, substream, to_float
from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, ask
from divqat_brevitas.extraction.learners.base import PlainLearner, TrainedClone, TransferSet
from divqat_brevitas.extraction.learners.prior import CorrectedLearner
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.surrogates.training import (
    Epoch,
    OnEpoch,
    SurrogateTraining,
    sgd,
    soft_cross_entropy,
)
from divqat_brevitas.extraction.victim import Victim
from divqat_brevitas.training.kernels import random_flip, random_shift


@dataclass(frozen=True, kw_only=True)
class MixMatch(CheckedSettings):
    """Settings, in the paper's letters.

    Attributes:
        augmentations: K, number of augmented versions of an unlabelled image, whose predictions are
            averaged.
        temperature: T of the sharpening, in (0, 1]; 1 changes nothing.
        alpha: parameter of the Beta distribution of the mixing weights.
        weight: λ_U, of the unlabelled loss; it grows linearly to this value. The paper has 75 for
            CIFAR-10 after a million steps; with hundreds of steps some clones then train on their
            own wrong labels.
        shift: largest random shift in pixels; None: an eighth of the image's shorter side, as in
            the paper (4 of 32).
        most_steps: largest number of steps of an epoch, which is one pass over the unlabelled
            images.
    """

    augmentations: Annotated[int, Within(low=1)] = 2
    temperature: Annotated[float, Within(above=0, high=1)] = 0.5
    alpha: Annotated[float, Within(above=0)] = 0.75
    weight: Annotated[float, Within(low=0)] = 25.0
    shift: Annotated[int | None, Within(low=0)] = None
    most_steps: Annotated[int, Within(low=1)] = 100


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Rows p^(1/T), normalised (the paper's eq. 7).

    Example:
        >>> sharpen(torch.tensor([[0.75, 0.25]]), 0.5)
        tensor([[0.9000, 0.1000]])
    """
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def train_mixmatch(
    model: nn.Module,
    images: Images,
    targets: Responses,
    unlabelled: Images,
    *,
    epochs: int,
    seed: int,
    training: SurrogateTraining,
    settings: MixMatch,
    on_epoch: OnEpoch = None,
) -> list[Epoch]:
    """Train ``model`` in place; it ends in eval mode, on the CPU.

    Optimiser, schedule, clipping, batch size, precision, device and flip are those of ``training``;
    its shift, mixup, cutmix and holdout are not used. With a learning rate that ends at zero no
    average of weights is kept (the paper's exponential moving average goes with a constant one).
    One batch-norm pass sees all parts of a batch together, which is what the authors' interleaving
    approximates.

    Args:
        model: images to logits (N, classes).
        images: labelled, float32 (N, C, H, W) in [0, 1].
        targets: float32 (N, classes), rows of probabilities; rows that are all zero are left out.
        unlabelled: float32 (M, C, H, W), at least 2; may hold the labelled ones as well.
        epochs: see ``MixMatch.most_steps``.
        seed: of the order, augmentation and mixing.
        training: see above.
        settings: see :class:`MixMatch`.
        on_epoch: called after each epoch with its row: "epoch" (from 1), and means of "loss" and
            its parts "labelled" and "unlabelled" (the latter without its weight).

    Raises:
        InputError: fewer than 2 unlabelled images, or fewer than 2 responses that are not zero.
        CheckFailedError: the loss is no longer finite.
    """
    informative = np.flatnonzero(targets.any(axis=1))
    if len(informative) < 2 or len(unlabelled) < 2:
        raise InputError(
            f"semi-supervised training needs at least 2 responses that are not zero and 2 images "
            f"without a response, but got {len(informative)} and {len(unlabelled)}."
        )
    x_all = torch.from_numpy(images[informative]).to(memory_format=torch.channels_last)
    y_all = torch.from_numpy(targets[informative])
    u_all = torch.from_numpy(unlabelled).to(memory_format=torch.channels_last)
    rng = substream(seed, "mixmatch")
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    batch = training.batch_size
    steps = min(-(-len(u_all) // batch), settings.most_steps)
    labelled_stock, unlabelled_stock = _Stock(len(x_all), rng), _Stock(len(u_all), rng)
    shift = min(images.shape[2:]) // 8 if settings.shift is None else settings.shift

    def augment(batch: Tensor) -> Tensor:
        shifted = random_shift(batch, shift, generator)
        return random_flip(shifted, generator) if training.flip else shifted

    device = torch.device(training.device)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    cast = training.autocast()
    optimizer, schedule = sgd(model, training, epochs * steps)
    model.train()
    history: list[Epoch] = []
    for epoch in range(1, epochs + 1):
        sums = np.zeros(3)
        for step in range(steps):
            rows = labelled_stock.take(batch)
            x, y = augment(x_all[rows]), y_all[rows]
            u = u_all[unlabelled_stock.take(batch)]
            views = [augment(u) for _ in range(settings.augmentations)]
            with torch.no_grad(), cast:
                predictions = [
                    model(view.to(device)).float().softmax(dim=1).cpu() for view in views
                ]
            guess = sharpen(torch.stack(predictions).mean(dim=0), settings.temperature)
            everything = torch.cat([x, *views])
            labels = torch.cat([y] + [guess] * settings.augmentations)
            mixed, mixed_labels = _mix_up(everything, labels, settings.alpha, rng)
            mixed_labels = mixed_labels.to(device)
            with cast:
                logits = model(mixed.to(device))
            logits = logits.float()
            labelled = soft_cross_entropy(logits[: len(x)], mixed_labels[: len(x)])
            other = F.mse_loss(logits[len(x) :].softmax(dim=1), mixed_labels[len(x) :])
            risen = ((epoch - 1) * steps + step + 1) / (epochs * steps)
            loss = labelled + settings.weight * risen * other
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            schedule.step()
            sums += [loss.item(), labelled.item(), other.item()]
        means = sums / steps
        row: Epoch = {"epoch": epoch, "loss": means[0]}
        row |= {"labelled": means[1], "unlabelled": means[2]}
        if not np.isfinite(means[0]):
            raise CheckFailedError(
                f"the clone's training diverged in epoch {epoch} (loss {means[0]}). "
                f"Lower its learning rate, now {training.learning_rate}."
            )
        history.append(row)
        if on_epoch is not None:
            on_epoch(row)
    model.to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.eval()
    return history


def _mix_up(x: Tensor, y: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Each row with a random other one, its own weight at least a half (eq. 8 to 11)."""
    weight = rng.beta(alpha, alpha, len(x)).astype(np.float32)
    own = torch.from_numpy(np.maximum(weight, 1 - weight))[:, None]
    other = torch.from_numpy(rng.permutation(len(x)))
    mixed = own[:, :, None, None] * x + (1 - own[:, :, None, None]) * x[other]
    return mixed, own * y + (1 - own) * y[other]


class _Stock:
    """Indices in random order; a new order begins when all have been taken."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self._count, self._rng = count, rng
        self._order = np.zeros(0, np.int64)

    def take(self, size: int) -> Tensor:
        while len(self._order) < size:
            self._order = np.concatenate([self._order, self._rng.permutation(self._count)])
        taken, self._order = self._order[:size], self._order[size:]
        return torch.from_numpy(taken)


@dataclass(frozen=True)
class SemiSupervised(PoolAttack):
    """Asks a random part of the pool and trains on all of it with MixMatch.

    The queries are those of KnockoffNets' random strategy with the same seed; one epoch is a pass
    over the images that were not asked. If fewer than 2 are left, the complete pool is unlabelled
    images. The gain depends on the network: with 60 responses on digits the default "vgg-small" is
    better than KnockoffNets with as many steps, while "mlp" is worse on average and varies between
    seeds.

    Args:
        learner: a :class:`PlainLearner`, or a correction of one: defines surrogate, targets,
            epochs, training and initial weights.
        seed: of everything random in the attack.
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
        self._plain()

    def _plain(self) -> PlainLearner:
        learner = self.trainer()
        if not isinstance(learner, PlainLearner):
            raise InputError(
                f"the semi-supervised attack has a training of its own and cannot take the "
                f"learner {learner.name!r}; give it a PlainLearner, corrected or not."
            )
        return learner

    name = "semi-supervised"

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
        self, images: NDArray[Any], transfer_set: TransferSet, seed: int, on_epoch: OnEpoch
    ) -> TrainedClone:
        learner = self._plain()
        unlabelled = to_float(images[self._unlabelled(images, len(transfer_set.images))])

        def train(part: TransferSet, on_epoch: OnEpoch = None) -> TrainedClone:
            clone = learner.build(part, seed)
            history = train_mixmatch(
                clone,
                to_float(part.images),
                training_targets(part.responses, learner.targets),
                unlabelled,
                epochs=learner.epochs,
                seed=seed,
                training=learner.training,
                settings=self.mixmatch,
                on_epoch=on_epoch,
            )
            return TrainedClone(clone, history)

        clone, given = train(transfer_set, on_epoch), self.clone_learner()
        if isinstance(given, CorrectedLearner):
            return given.correct(clone, transfer_set, seed, train)
        return clone
