"""The skeptical student: distillation into a shallow part of the clone, not into its output.

Kundu, Sun, Fu, Pedram and Beerel, "Analyzing the Confidentiality of Undistillable Teachers in
Knowledge Distillation", NeurIPS 2021. The student has classifiers at several depths. A shallow
one is distilled from the teacher's soft responses, so that perturbed responses cannot harm the
layers behind it; the last one learns labels; the one before it learns from the last
(self-distillation) and from labels. The loss terms and their weights are those of the authors'
public training code (Skeptical2021, ``train_kd_to_SD.py``).

Deviations: the victim's label replaces the true label, which an attacker does not have; the heads
of the exits are one convolution, pooling and a linear layer instead of ResNet bottlenecks;
distillation runs from the first epoch on.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from divqat_brevitas.errors import CheckedSettings, InputError, OneOf, Within
from divqat_brevitas.extraction.arrays import substream, to_float
from divqat_brevitas.extraction.learners.base import TrainedClone, TransferSet
from divqat_brevitas.extraction.learners.targets import training_targets
from divqat_brevitas.extraction.surrogates.networks import SURROGATES, build_surrogate
from divqat_brevitas.extraction.surrogates.training import (
    OnEpoch,
    SurrogateTraining,
    soft_cross_entropy,
    train_surrogate,
)

HEAD_CHANNELS = 64
SELF_DISTILLATION = 0.3


class _Exits(nn.Module):
    """A surrogate with two more classifiers: logits (last, next to last, shallow) in training.

    In eval mode it returns only the surrogate's own logits.
    """

    def __init__(self, trunk: nn.Sequential, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        ends = _stage_ends(trunk)
        self.trunk = trunk
        self.ends = (ends[max(0, len(ends) - 3)], ends[max(0, len(ends) - 2)])
        features = _features(trunk, torch.zeros(2, *shape), self.ends)
        self.shallow, self.inner = (_head(f, classes) for f in features)

    def forward(self, images: Tensor) -> Any:
        if not self.training:
            return self.trunk(images)
        outputs: list[Tensor] = []
        x = images
        for i, layer in enumerate(self.trunk):
            x = layer(x)
            if i == self.ends[0]:
                outputs.append(self.shallow(x))
            if i == self.ends[1]:
                outputs.append(self.inner(x))
        return x, outputs[1], outputs[0]


def _stage_ends(trunk: nn.Sequential) -> list[int]:
    """Indices of the layers that end a stage: poolings, residual blocks, else activations."""
    kinds: tuple[type[nn.Module], ...] = (nn.MaxPool2d,)
    layers = list(trunk)
    if not any(isinstance(layer, kinds) for layer in layers):
        blocks = [i for i, layer in enumerate(layers) if hasattr(layer, "shortcut")]
        return blocks or [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    return [i for i, layer in enumerate(layers) if isinstance(layer, kinds)]


def _features(trunk: nn.Sequential, images: Tensor, ends: tuple[int, int]) -> tuple[Tensor, Tensor]:
    features: dict[int, Tensor] = {}
    training = trunk.training
    trunk.eval()
    with torch.no_grad():
        for i, layer in enumerate(trunk):
            images = layer(images)
            features[i] = images
    trunk.train(training)
    return features[ends[0]], features[ends[1]]


def _head(features: Tensor, classes: int) -> nn.Module:
    width = features.shape[1]
    if features.ndim == 2:
        return nn.Linear(width, classes)
    return nn.Sequential(
        nn.Conv2d(width, HEAD_CHANNELS, 3, padding=1, bias=False),
        nn.BatchNorm2d(HEAD_CHANNELS),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(HEAD_CHANNELS, classes),
    )


@dataclass(frozen=True, kw_only=True)
class SkepticalLearner(CheckedSettings):
    """Distils into a shallow section of the surrogate; the clone has no exits.

    Aimed at networks trained to be undistillable (Nasty Teacher, DivQAT), whose soft responses are
    wrong and whose labels are right.

    Args:
        surrogate: see :func:`build_surrogate`.
        epochs: number of training epochs, at least 1.
        training: settings of the training.
        temperature: of the distillation, above 0; Nasty Teacher's distillation has 4.
        alpha: weight of the soft responses against labels at the shallow exit, in [0, 1].
    """

    surrogate: Annotated[str, OneOf("surrogate", SURROGATES)] = "vgg-small"
    epochs: Annotated[int, Within(low=1)] = 20
    training: SurrogateTraining = field(default_factory=SurrogateTraining)
    temperature: Annotated[float, Within(above=0)] = 4.0
    alpha: Annotated[float, Within(0, 1)] = 0.9

    name = "skeptical"

    @property
    def settings(self) -> dict[str, Any]:
        """All of the arguments."""
        return asdict(self)

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Train a clone; its history's loss is the sum of the terms."""
        trunk = build_surrogate(self.surrogate, transfer_set.shape, transfer_set.classes, seed)
        if not isinstance(trunk, nn.Sequential):
            raise InputError(f"a skeptical student needs a sequential surrogate, not {trunk!r}.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(substream(seed, "exits").integers(2**62)))
            student = _Exits(trunk, transfer_set.shape, transfer_set.classes)
        history = train_surrogate(
            student,
            to_float(np.asarray(transfer_set.images)),
            training_targets(transfer_set.responses, "soft"),
            epochs=self.epochs,
            seed=seed,
            settings=self.training,
            on_epoch=on_epoch,
            objective=self._loss,
        )
        return TrainedClone(trunk, history)

    def _loss(self, outputs: tuple[Tensor, Tensor, Tensor], responses: Tensor) -> Tensor:
        last, inner, shallow = (logits.float() for logits in outputs)
        t = self.temperature
        soft = F.softmax(responses.clamp_min(1e-8).log() / t, dim=1)
        hard = F.one_hot(responses.argmax(dim=1), responses.shape[1]).float()
        kl = nn.KLDivLoss(reduction="batchmean")
        distilled = self.alpha * t * t * kl(F.log_softmax(shallow / t, dim=1), soft)
        labelled = (1 - self.alpha) * soft_cross_entropy(shallow, hard)
        within = SELF_DISTILLATION * kl(
            F.log_softmax(inner / t, dim=1), F.softmax(last / t, dim=1)
        ) + (1 - SELF_DISTILLATION) * soft_cross_entropy(inner, hard)
        total: Tensor = distilled + labelled + within + soft_cross_entropy(last, hard)
        return total
