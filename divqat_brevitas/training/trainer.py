"""The training loop: one for all variants, resumable at any epoch with equal results.

SGD with Nesterov momentum, linear warm-up and cosine decay. Networks with one-bit weights train by
AdamW, as their authors do (Courbariaux and Hubara 2016): one learning rate suits weights of any
size, and each step turns as many signs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.inference import accuracy
from divqat_brevitas.short_repr import ShortRepr
from divqat_brevitas.training.log import scales
from divqat_brevitas.training.loop import Criterion, Data, Loop, Row, TrainSettings


class GuardError(CheckFailedError):
    """The victim stayed below its plain-QAT twin by more than the tolerance."""


@dataclass(frozen=True)
class AccuracyGuard:
    """Compares with a plain-QAT twin, on validation data.

    After an epoch that is more than ``tolerance`` below the twin's same epoch the divergence
    weight is halved. If the last epoch is still too low, up to ``extra_epochs`` follow, each at
    half the weight; then the guard gives up with GuardError.

    Attributes:
        twin: validation accuracy of the twin after each epoch, fractions of 1.
        tolerance: how far below is allowed, a fraction of 1.
        extra_epochs: recovery epochs at most.
    """

    twin: tuple[float, ...]
    tolerance: float = 0.02
    extra_epochs: int = 3

    def too_low(self, epoch: int, accuracy: float) -> bool:
        """Whether ``accuracy`` after epoch ``epoch`` (from 0) is below what is allowed."""
        return accuracy < self.twin[min(epoch, len(self.twin) - 1)] - self.tolerance

    def check(self, accuracy: float, name: str) -> None:
        """Raise GuardError if the final accuracy is too low."""
        if self.too_low(len(self.twin) - 1, accuracy):
            raise GuardError(
                f"accuracy guard: {name} reaches {accuracy:.4f} on validation data, its plain-QAT "
                f"twin {self.twin[-1]:.4f}, and {self.tolerance:.4f} may be lost. Lower the "
                "divergence weight (divqat.weight), train longer, or allow more (divqat.guard)."
            )


@dataclass(frozen=True)
class TrainResult(ShortRepr):
    """What training gave; ``history`` has one row an epoch."""

    history: tuple[Row, ...]

    @property
    def val_accuracy(self) -> float:
        """Validation accuracy after the last epoch, a fraction of 1."""
        return self.history[-1]["val_accuracy"]


def train(
    model: nn.Module,
    criterion: Criterion,
    *,
    train: Data,
    val: Data,
    settings: TrainSettings,
    checkpoint: Path | None = None,
    guard: AccuracyGuard | None = None,
    name: str = "model",
    on_start: Callable[[Sequence[Row]], None] = lambda rows: None,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> TrainResult:
    """Train ``model`` in place.

    Args:
        model: float or Brevitas network, calibrated if it is one; on the CPU or a CUDA device.
        criterion: called with (logits, labels, inputs=…); moved to the model's device.
        train: (N, C, H, W) uint8 images and (N,) int64 labels.
        val: the same, for the accuracy after each epoch and the guard.
        settings: how to train.
        checkpoint: file to continue from and to write after each epoch; the caller removes
            it once the result is stored. None: no checkpoints.
        guard: halves the divergence weight when accuracy drops too far.
        name: for messages.
        on_start: called with the rows of the epochs found in the checkpoint, before any other.
        on_epoch: called after each epoch with its row (not for epochs found in the checkpoint).

    Raises:
        TrainingDivergedError: the loss became NaN or infinite.
        GuardError: the guard could not be satisfied.
        InputError: the checkpoint is corrupt or of another training.

    Example:
        >>> import torch
        >>> from divqat_brevitas.training.loop import PlainLoss
        >>> images, labels = torch.randint(0, 256, (64, 1, 8, 8)).byte(), torch.arange(64) % 4
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        >>> r = train(net, PlainLoss(), train=(images, labels), val=(images, labels),
        ...           settings=TrainSettings(epochs=2))
        >>> len(r.history)
        2
    """
    loop = Loop(model, criterion, train, settings, name)
    extra = guard.extra_epochs if guard is not None else 0
    history = loop.resume(checkpoint)
    on_start(history)
    while len(history) < settings.epochs + extra:
        epoch = len(history)
        if epoch >= settings.epochs:  # recovery: only while the guard is not satisfied
            assert guard is not None
            if not guard.too_low(epoch, history[-1]["val_accuracy"]):
                break
        row = loop.epoch(epoch)
        row["val_accuracy"] = accuracy(model, *val)
        row |= {"learning_rate": loop.learning_rate, **scales(model)}
        if guard is not None and guard.too_low(epoch, row["val_accuracy"]):
            loop.weaken(0.5)
        history.append(row)
        if checkpoint is not None:
            loop.save(checkpoint, history)
        on_epoch(row)
    if guard is not None:
        guard.check(history[-1]["val_accuracy"], name)
    return TrainResult(tuple(history))
