"""Pretraining of the clone by rotation prediction, before it learns from the responses.

Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by Predicting Image
Rotations", ICLR 2018. The network sees each image in four rotations and predicts the rotation (sec.
2.1), which needs no query and no label. The clone starts from these weights, all but those of the
classifying layer. Rotation prediction helps little with images that look alike upside down.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, check_pool, substream, to_float
from divqat_brevitas.extraction.learners.base import (
    PlainLearner,
    TrainedClone,
    TransferSet,
    WrappingLearner,
)
from divqat_brevitas.extraction.surrogates.networks import build_surrogate, load_body
from divqat_brevitas.extraction.surrogates.training import Epoch, OnEpoch, train_surrogate

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
    epochs: int = 10
    images: NDArray[Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"pretraining takes at least 1 epoch, not {self.epochs}.")
        if self.base.init is not None:
            raise InputError("a learner takes initial weights from a file or pretrains, not both.")
        if self.images is not None:
            check_pool(self.images, "the images to pretrain on")

    @property
    def prefix(self) -> str:
        """Always "pretrained"."""
        return "pretrained"

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
