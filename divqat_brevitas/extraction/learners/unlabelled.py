"""Learners that also use images without a response: rotation prediction and self-training.

Pretraining (Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by Predicting Image
Rotations", ICLR 2018): the network sees each image in four rotations and predicts the rotation
(sec. 2.1), which needs no query and no label. The clone starts from these weights, all but those of
the classifying layer. Rotation prediction helps little with images that look alike upside down.

Self-training: two clones, each trained on one half of the responses, predict the images of the
other half. A prediction is used where all views of the image get the same label and the label's
mean probability reaches the average over the responses of that label. This is the threshold of
confident learning (Northcutt, Jiang and Chuang, JAIR 2021, eq. 2), which adapts to how confident
training on noisy responses can become. The views are those of the training: the image, its shifts
by one pixel if training shifts, and all of them mirrored if it flips. Images of the pool that were
not queried get the mean prediction of both clones.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import InputError, Within
from divqat_brevitas.extraction.arrays import Images, Responses, check_pool, substream, to_float
from divqat_brevitas.extraction.learners.base import (
    PlainLearner,
    TrainedClone,
    TransferSet,
    WrappingLearner,
)
from divqat_brevitas.extraction.oracles import softmax
from divqat_brevitas.extraction.predictor import TorchPredictor
from divqat_brevitas.extraction.surrogates.networks import build_surrogate, load_body
from divqat_brevitas.extraction.surrogates.training import (
    Epoch,
    OnEpoch,
    SurrogateTraining,
    train_surrogate,
)

ROTATIONS = 4


class _Rotating(nn.Module):
    """Logits of a batch in each rotation, one rotation after the other."""

    def __init__(self, network: nn.Module, turns: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.turns = turns

    def forward(self, images: Tensor) -> Any:
        return self.network(torch.cat([images.rot90(turn, (2, 3)) for turn in self.turns]))


@dataclass(frozen=True, kw_only=True)
class PretrainedLearner(WrappingLearner):
    """Predicts rotations of the attacker's own images first, then learns as ``base`` does.

    Aimed at small budgets, and at defences that leave few useful responses.

    Args:
        base: learns from the responses; its surrogate is pretrained.
        epochs: of rotation prediction, at least 1; an epoch has every image in four rotations.
        images: for pretraining, uint8 or float32 in [0, 1], (N, C, H, W): the attacker's pool,
            queried or not. None: the queried images.

    Raises:
        InputError: no epoch, bad images, or a base that has initial weights already.
    """

    base: PlainLearner = field(default_factory=PlainLearner)
    epochs: Annotated[int, Within(low=1)] = 10
    images: NDArray[Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base.init is not None:
            raise InputError("a learner takes initial weights from a file or pretrains, not both.")
        if self.images is not None:
            check_pool(self.images, "the images to pretrain on")

    prefix = "pretrained"

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments, with the number of images; None for the queried ones."""
        images = None if self.images is None else len(self.images)
        return super().settings | {"images": images}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Pretrain, then train a clone; the history is that of the clone."""
        images = to_float(np.asarray(transfer_set.images if self.images is None else self.images))
        if images.shape[1:] != transfer_set.shape:
            raise InputError(
                f"the images to pretrain on have shape {images.shape[1:]}, but those asked "
                f"{transfer_set.shape}."
            )
        clone = self.base.build(transfer_set, seed)
        network, history = self._pretrained(images, transfer_set.shape, seed)
        load_body(clone, network.state_dict(), "the pretrained network")
        notes = {"pretraining_loss": history[-1]["loss"]}
        return TrainedClone(clone, self.base.fit(clone, transfer_set, seed, on_epoch), notes)

    def _pretrained(
        self, images: Images, shape: tuple[int, int, int], seed: int
    ) -> tuple[nn.Module, list[Epoch]]:
        # A quarter turn of an oblong image has another shape.
        turns = (0, 1, 2, 3) if shape[1] == shape[2] else (0, 2)
        own = int(substream(seed, "rotations").integers(2**31))
        network = build_surrogate(self.base.surrogate, shape, ROTATIONS, own)

        def loss(logits: Tensor, responses: Tensor) -> Tensor:
            labels = torch.tensor(turns).repeat_interleave(len(responses))
            return F.cross_entropy(logits.float(), labels)

        history = train_surrogate(
            _Rotating(network, turns),
            images,
            np.ones((len(images), 1), np.float32),
            epochs=self.epochs,
            seed=own,
            settings=replace(self.base.training, mixup=0.0, cutmix=0.0, holdout=0.0, patience=None),
            objective=loss,
        )
        return network, history


@dataclass(frozen=True, kw_only=True)
class ConsistentLearner(WrappingLearner):
    """Trains on the responses, with those replaced that consistent clones contradict.

    Aimed at defences that answer some queries with a wrong label. ``TrainedClone.notes`` has the
    numbers of "contradicted" responses and of "believed" images of the pool. It costs about twice
    as much as the base.

    Args:
        base: trains the two judges and the clone.
        images: images of the attacker's pool that are not queried, uint8 or float32 in [0, 1],
            (N, C, H, W); None: no such images.

    Raises:
        InputError: bad images.
    """

    base: PlainLearner = field(default_factory=PlainLearner)
    images: NDArray[Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.images is not None:
            check_pool(self.images, "the pool's images")

    prefix = "consistent"

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments, with the number of images."""
        return super().settings | {"images": 0 if self.images is None else len(self.images)}

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Let two clones judge the responses, then train the clone on the corrected ones."""
        images = to_float(np.asarray(transfer_set.images))
        responses = transfer_set.responses.copy()
        if len(images) < 4:
            return self.base.learn(transfer_set, seed, on_epoch)
        order = substream(seed, "halves").permutation(len(images))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        judged, agreed = np.zeros_like(responses), np.zeros(len(responses), np.bool_)
        judges: list[nn.Module] = []
        for own, other in (halves, halves[::-1]):
            part = TransferSet(transfer_set.images[own], transfer_set.responses[own])
            judges.append(self.base.learn(part, seed).clone)
            judged[other], agreed[other] = self._judge(judges[-1:], images[other])
        informative = responses.sum(axis=1) > 0
        thresholds = _thresholds(judged[informative], responses[informative])
        wrong = informative & agreed & _reaches(judged, thresholds)
        wrong &= np.not_equal(judged.argmax(axis=1), responses.argmax(axis=1))
        responses[wrong] = judged[wrong]
        believed = 0
        if self.images is not None:
            pool = to_float(self.images)
            judged, agreed = self._judge(judges, pool)
            sure = agreed & _reaches(judged, thresholds)
            images = np.concatenate([images, pool[sure]])
            responses = np.concatenate([responses, judged[sure]])
            believed = int(sure.sum())
        learned = self.base.learn(TransferSet(images, responses), seed, on_epoch)
        notes = {"contradicted": int(wrong.sum()), "believed": believed}
        return TrainedClone(learned.clone, learned.history, learned.notes | notes)

    def _judge(
        self, judges: list[nn.Module], images: Images
    ) -> tuple[Responses, NDArray[np.bool_]]:
        """Mean predictions over judges and views, and where all of them have one label."""
        responses = np.stack(
            [
                softmax(TorchPredictor(judge).predict(view))
                for judge in judges
                for view in views(images, self.base.training)
            ]
        )
        labels = responses.argmax(axis=2)
        mean: Responses = responses.mean(axis=0)
        agreed: NDArray[np.bool_] = (labels == labels[0]).all(axis=0)
        return mean, agreed


def _thresholds(judged: Responses, responses: Responses) -> NDArray[np.float64]:
    """Mean judged probability of each label among its responses; infinite where there are none."""
    classes = responses.shape[1]
    labels = responses.argmax(axis=1)
    sums = np.bincount(labels, judged[np.arange(len(labels)), labels], minlength=classes)
    counts = np.bincount(labels, minlength=classes)
    means: NDArray[np.float64] = np.full(classes, np.inf)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _reaches(judged: Responses, thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
    reached: NDArray[np.bool_] = judged.max(axis=1) >= thresholds[judged.argmax(axis=1)]
    return reached


def views(images: Images, training: SurrogateTraining) -> list[Images]:
    """The views of images that a judge predicts, the images themselves first."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = images.shape[2:]
    places = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2)) if training.shift else ((1, 1),)
    views = [padded[:, :, y : y + height, x : x + width] for y, x in places]
    views += [view[:, :, :, ::-1] for view in views] if training.flip else []
    return [np.ascontiguousarray(view) for view in views]
