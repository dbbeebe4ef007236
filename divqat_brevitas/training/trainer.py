"""The training loop: one for all variants, resumable at any epoch with equal results.

SGD with Nesterov momentum, linear warm-up and cosine decay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from divqat_brevitas.short_repr import ShortRepr
from divqat_brevitas.training.evaluate import accuracy
from divqat_brevitas.training.guard import AccuracyGuard
from divqat_brevitas.training.log import scales
from divqat_brevitas.training.loop import Criterion, Data, Loop, Row, TrainSettings


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
