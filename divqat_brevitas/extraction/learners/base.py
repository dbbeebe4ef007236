"""Learners: from a transfer set to a clone, and the folder of clones that were trained before.

An attack decides what to ask; a learner decides how to train on the responses. An attacker that
knows the defence uses another learner, so every learner works with every attack.

Many attacks of a benchmark train the same clone: equal initial weights, images, targets and
settings give one. The name of a remembered clone's file is a hash of everything that training
depends on; a digest is checked when the file is read.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import CheckedSettings, InputError, OneOf, Within
from divqat_brevitas.extraction.arrays import Responses, substream
from divqat_brevitas.extraction.learners.targets import target_function, training_targets
from divqat_brevitas.extraction.surrogates.networks import SURROGATES, build_surrogate, load_initial
from divqat_brevitas.extraction.surrogates.training import (
    Epoch,
    OnEpoch,
    SurrogateTraining,
    train_surrogate,
)
from divqat_brevitas.short_repr import ShortRepr
from divqat_brevitas.training.checkpoint import load_weights, save_weights


def training_key(
    clone: nn.Module,
    images: NDArray[Any],
    targets: Responses,
    epochs: int,
    seed: int,
    settings: SurrogateTraining,
) -> str:
    """SHA-256 of what the result of ``train_surrogate`` depends on."""
    about = {
        "network": repr(clone),
        "epochs": epochs,
        "seed": seed,
        "settings": asdict(settings),
        "images": [str(images.dtype), *images.shape],
        "targets": list(targets.shape),
        # Sums are taken in another order by other versions and numbers of threads.
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in clone.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    for array in (images, targets):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def recall(folder: Path, key: str, clone: nn.Module) -> list[Epoch] | None:
    """Load a clone's trained weights into it, in eval mode; return the history of its training.

    Returns None where ``folder`` has no clone of that key, or a changed or truncated file, which is
    written anew.
    """
    path = _file(folder, key)
    if not path.is_file():
        return None
    try:
        record = load_weights(path, clone)
    except InputError:
        return None
    clone.eval()
    history: list[Epoch] = record["history"]
    return history


def keep(folder: Path, key: str, clone: nn.Module, history: list[Epoch]) -> None:
    """Write a trained clone; a partial file never stays."""
    path = _file(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, clone, {"key": key, "history": history})


def _file(folder: Path, key: str) -> Path:
    return Path(folder) / key[:2] / f"{key[:32]}.safetensors"


@dataclass(frozen=True)
class TransferSet(ShortRepr):
    """Queried images with the victim's responses.

    Attributes:
        images: uint8 or float32 in [0, 1], (N, C, H, W), at least 2.
        responses: on the scale of probabilities, float32 (N, classes).

    Raises:
        InputError: other numbers of images and responses, or fewer than 2.
    """

    images: NDArray[Any]
    responses: Responses

    def __post_init__(self) -> None:
        if len(self.images) != len(self.responses) or len(self.images) < 2:
            raise InputError(
                f"a clone needs at least 2 answered queries, one response an image, but got "
                f"{len(self.images)} images and {len(self.responses)} responses."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.responses.shape[1])


@dataclass(frozen=True)
class TrainedClone(ShortRepr):
    """A clone with the record of its training.

    Attributes:
        clone: the trained network, in eval mode.
        history: its training, one row an epoch.
        notes: what the learner measured or selected, as values that JSON can hold.
    """

    clone: nn.Module
    history: list[Epoch]
    notes: dict[str, Any] = field(default_factory=dict)


class Learner(Protocol):
    """Trains a clone on a transfer set, and on nothing else."""

    @property
    def name(self) -> str:
        """The name in results (field "treatment"), such as "soft" or "skeptical"."""
        ...

    @property
    def surrogate(self) -> str:
        """Name of the clone's network."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Its hyper-parameters, as values that JSON can hold."""
        ...

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Train a clone; the same transfer set, seed and number of threads give the same clone."""
        ...


SMALLEST_PART = 10


def held_out(
    transfer_set: TransferSet, seed: int, part: float
) -> tuple[TransferSet, TransferSet] | None:
    """Split off a random part of the responses that are not zero, for the attacker's validation.

    Returns:
        What is left to train on, and the part; None where the part has fewer than 10 responses.
    """
    informative = np.flatnonzero(transfer_set.responses.any(axis=1))
    order = substream(seed, "validation").permutation(informative)
    size = int(len(order) * part)
    if size < SMALLEST_PART:
        return None
    fit, check = (
        TransferSet(transfer_set.images[rows], transfer_set.responses[rows])
        for rows in (order[size:], order[:size])
    )
    return fit, check


def described(learner: Learner) -> dict[str, Any]:
    """A learner's name and settings, as values that JSON can hold."""
    return {"name": learner.name, **learner.settings}


@dataclass(frozen=True, kw_only=True)
class PlainLearner(CheckedSettings):
    """Trains a fresh surrogate on targets made of the responses, as the papers' attacks do.

    Args:
        surrogate: see :func:`build_surrogate`.
        targets: how training targets are made of the responses, see
            :mod:`divqat_brevitas.extraction.learners.targets`.
        epochs: number of training epochs, at least 1.
        training: settings of the training.
        init: safetensors file with the weights of an equal network to start from, without those
            of the classifying layer; None: random weights.
        remember: folder of trained clones. A clone that was trained before in the same way is read
            from there. It is not a part of :attr:`settings`, because it does not change results.

    Raises:
        InputError: an unknown name, or no epoch.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images, responses = rng.random((40, 1, 8, 8), np.float32), np.eye(4, dtype=np.float32)
        >>> learner = PlainLearner(surrogate="mlp", targets="temperature:2", epochs=1)
        >>> len(learner.learn(TransferSet(images, responses[np.arange(40) % 4]), seed=0).history)
        1
    """

    surrogate: Annotated[str, OneOf("surrogate", SURROGATES)] = "vgg-small"
    targets: str = "soft"
    epochs: Annotated[int, Within(low=1)] = 20
    training: SurrogateTraining = field(default_factory=SurrogateTraining)
    init: Path | None = None
    remember: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        target_function(self.targets)

    @property
    def name(self) -> str:
        """The name of the targets."""
        return self.targets

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments that the clone depends on."""
        about = asdict(self) | {"init": None if self.init is None else str(self.init)}
        del about["remember"]
        return about

    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """Train a clone on all responses."""
        clone = self.build(transfer_set, seed)
        return TrainedClone(clone, self.fit(clone, transfer_set, seed, on_epoch))

    def build(self, transfer_set: TransferSet, seed: int) -> nn.Module:
        """The untrained clone, with the initial weights."""
        clone = build_surrogate(self.surrogate, transfer_set.shape, transfer_set.classes, seed)
        if self.init is not None:
            load_initial(clone, Path(self.init))
        return clone

    def fit(
        self, clone: nn.Module, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None
    ) -> list[Epoch]:
        """Train ``clone`` in place; returns the history.

        ``on_epoch`` is not called for a clone that is read from the folder.
        """
        images = np.asarray(transfer_set.images)
        targets = training_targets(transfer_set.responses, self.targets)

        def trained() -> list[Epoch]:
            return train_surrogate(
                clone,
                images,
                targets,
                epochs=self.epochs,
                seed=seed,
                settings=self.training,
                on_epoch=on_epoch,
            )

        if self.remember is None:
            return trained()
        key = training_key(clone, images, targets, self.epochs, seed, self.training)
        history = recall(self.remember, key, clone)
        if history is None:
            history = trained()
            keep(self.remember, key, clone, history)
        return history


@dataclass(frozen=True, kw_only=True)
class WrappingLearner(CheckedSettings, ABC):
    """A learner that prepares the transfer set or the clone for another learner.

    Attributes:
        base: the other learner.
    """

    base: Learner = field(default_factory=PlainLearner)

    @property
    @abstractmethod
    def prefix(self) -> str:
        """The learner's own name, such as "filtered"."""

    @property
    def name(self) -> str:
        """The own name, followed by the base's where that is not "soft": "filtered-argmax"."""
        return self.prefix if self.base.name == "soft" else f"{self.prefix}-{self.base.name}"

    @property
    def surrogate(self) -> str:
        """The base's surrogate."""
        return self.base.surrogate

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments as values that JSON can hold; the base's under "base"."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "base"}
        return own | {"base": described(self.base)}

    @abstractmethod
    def learn(self, transfer_set: TransferSet, seed: int, on_epoch: OnEpoch = None) -> TrainedClone:
        """See :meth:`Learner.learn`."""
