"""One training on its way: network, optimizer, position, and what makes it resumable.

Everything random comes from (seed, epoch), so a run that was killed and continued ends
bit-identical to one that was not (same machine, same number of threads).
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from divqat_brevitas.errors import CheckedSettings, CheckFailedError, InputError, OneOf, Within
from divqat_brevitas.files import sha256_text
from divqat_brevitas.inference import as_logits, device_of, to_input
from divqat_brevitas.quant.signs import sign_weights
from divqat_brevitas.training.checkpoint import load_tensors, restore, save_tensors
from divqat_brevitas.training.kernels import (
    PRECISIONS,
    channels_last,
    fast_kernels,
    random_flip,
    random_shift,
)

Data = tuple[Tensor, Tensor]
Row = dict[str, float]
ADAM_SQUARES = 0.999  # of AdamW's mean of squared gradients, its authors' value
# What the optimizers remember of a parameter, by the name in a checkpoint.
_STATE = {
    "momentum": "momentum_buffer",
    "average": "exp_avg",
    "squares": "exp_avg_sq",
    "steps": "step",
}
AUGMENTATIONS = ("none", "shift", "flip-shift")


class TrainingDivergedError(CheckFailedError):
    """The loss became NaN or infinite."""


class Criterion(Protocol):
    """A loss as the trainer calls it; ``DivQATLoss`` is one, ``PlainLoss`` another."""

    terms: dict[str, Tensor]
    progress: float

    def __call__(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """Scalar loss of a batch."""
        ...

    def with_outliers(self, inputs: Tensor, generator: Generator | None = None) -> Tensor:
        """``inputs``, and behind them whatever else the network is to see in this step."""
        ...

    def scale_weight(self, factor: float) -> None:
        """Multiply the weight of what the accuracy guard may weaken."""
        ...


class PlainLoss:
    """Only cross-entropy: float training and plain QAT."""

    def __init__(self) -> None:
        self.terms: dict[str, Tensor] = {}
        self.progress = 1.0

    def __call__(self, logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """Cross-entropy; ``inputs`` is not looked at."""
        loss = F.cross_entropy(logits, labels)
        self.terms = {"cross_entropy": loss.detach()}
        return loss

    def with_outliers(self, inputs: Tensor, generator: Generator | None = None) -> Tensor:
        """Only ``inputs``."""
        return inputs

    def scale_weight(self, factor: float) -> None:
        """Nothing to weaken."""


@dataclass(frozen=True)
class TrainSettings(CheckedSettings):
    """How to train: by SGD with Nesterov momentum, one-bit weights by AdamW.

    Attributes:
        epochs: passes over the training data.
        batch_size: images a step.
        learning_rate: at its peak, after a warm-up of the first tenth of all steps.
        weight_decay: on weights; not on biases, batch norm, scales and one-bit weights.
        momentum: Nesterov momentum; AdamW's factor of the mean gradient.
        clip_norm: gradients are clipped to this norm.
        augment: "none", "shift" or "flip-shift".
        seed: of the order of images and the augmentation.
        precision: of convolutions and linear layers, "float32" or "bfloat16" (faster where the
            processor has it). Weights, quantizers, batch norm and loss stay float32.
    """

    epochs: Annotated[int, Within(above=0)] = 10
    batch_size: Annotated[int, Within(above=0)] = 128
    learning_rate: Annotated[float, Within(above=0)] = 0.05
    weight_decay: float = 5e-4
    momentum: float = 0.9
    clip_norm: Annotated[float, Within(above=0)] = 5.0
    augment: Annotated[str, OneOf("augmentation", AUGMENTATIONS)] = "none"
    seed: int = 0
    precision: Annotated[str, OneOf("precision", PRECISIONS)] = "float32"


class Loop:
    """Model, optimizer and position of one training.

    Args:
        model: as in ``train``.
        criterion: as in ``train``.
        data: (N, C, H, W) uint8 images and (N,) int64 labels, at least two.
        settings: how to train.
        name: for messages.

    Raises:
        InputError: too few images.

    Example:
        >>> data = torch.randint(0, 256, (64, 1, 8, 8)).byte(), torch.arange(64) % 4
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        >>> loop = Loop(net, PlainLoss(), data, TrainSettings(epochs=2), "net")
        >>> sorted(loop.epoch(0))
        ['cross_entropy', 'epoch', 'loss', 'train_accuracy']
    """

    def __init__(
        self, model: nn.Module, criterion: Criterion, data: Data, settings: TrainSettings, name: str
    ) -> None:
        self.model, self.criterion, self.settings, self.name = model, criterion, settings, name
        self.images, self.labels = data
        if len(self.images) < 2:
            raise InputError(f"training {name}: {len(self.images)} images are too few.")
        self.weight_factor = 1.0
        if isinstance(criterion, nn.Module):  # its reference sees what the model sees
            criterion.to(device_of(model))
        self._make_optimizer()

    def _make_optimizer(self) -> None:
        s = self.settings
        scales = {
            id(p) for n, p in self.model.named_parameters() if n.endswith("scaling_impl.value")
        }
        signs = {id(p) for p in sign_weights(self.model)}
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        decay = [p for p in self.parameters if p.dim() > 1 and id(p) not in scales | signs]
        rest = [p for p in self.parameters if p.dim() <= 1 or id(p) in scales | signs]
        groups: list[dict[str, Any]] = [
            {"params": decay, "weight_decay": s.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        self.optimizer: torch.optim.Optimizer
        if signs:
            self.optimizer = torch.optim.AdamW(
                groups, lr=s.learning_rate, betas=(s.momentum, ADAM_SQUARES)
            )
        else:
            self.optimizer = torch.optim.SGD(
                groups, lr=s.learning_rate, momentum=s.momentum, nesterov=s.momentum > 0
            )

    @property
    def _ordered(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def weaken(self, factor: float) -> None:
        """Multiply the weight of what the guard may weaken, and remember it."""
        self.weight_factor *= factor
        self.criterion.scale_weight(factor)

    def epoch(self, number: int) -> Row:
        """One pass over the data; means of the loss terms, and the accuracy on its way."""
        s = self.settings
        generator = torch.Generator().manual_seed(_mix(s.seed, number))
        order = torch.randperm(len(self.images), generator=generator)
        # A last batch of one image has no batch statistics: it joins the one before.
        batches = list(torch.split(order, s.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        sums: Row = {}
        device = device_of(self.model)
        self.model.train()
        # Layers such as dropout draw from the device's global generator.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_mix(s.seed, number))
            for step, index in enumerate(batches):
                done = (number + step / len(batches)) / s.epochs
                self.criterion.progress = min(1.0, done)
                for group in self.optimizer.param_groups:
                    group["lr"] = s.learning_rate * _rate(done)
                # Drawn on the CPU, so that every device trains on the same images.
                x = augmented(to_input(self.images[index]), s.augment, generator)
                x = channels_last(self.criterion.with_outliers(x, generator)).to(device)
                with fast_kernels(self.model, s.precision):
                    logits = as_logits(self.model(x), len(x), self.name)
                loss = self.criterion(logits, self.labels[index].to(device), x)
                if not math.isfinite(loss.item()):
                    raise TrainingDivergedError(
                        f"training {self.name} diverged: the loss is {loss.item()} in epoch "
                        f"{number + 1}, step {step + 1}. Lower the learning rate "
                        f"(now {s.learning_rate}) or the divergence weight; the checkpoint of "
                        "the epoch before is kept."
                    )
                self.optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(self.parameters, s.clip_norm)
                self.optimizer.step()
                for key, value in (("loss", loss), *self.criterion.terms.items()):
                    sums[key] = sums.get(key, 0.0) + value.item() * len(index)
                # Outliers stand behind the images and have no label.
                right = logits[: len(index)].argmax(dim=1).cpu() == self.labels[index]
                sums["train_accuracy"] = sums.get("train_accuracy", 0.0) + right.sum().item()
        row = {key: value / len(self.images) for key, value in sums.items() if key != "total"}
        return {"epoch": number + 1, **row}

    def save(self, path: Path, history: list[Row]) -> None:
        """Write a checkpoint, whole or not at all."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, p in enumerate(self._ordered):
            state = self.optimizer.state.get(p, {})
            for stored, key in _STATE.items():
                if state.get(key) is not None:
                    tensors[f"{stored}.{i}"] = state[key]
        record = {
            "training": self._fingerprint(),
            "history": history,
            "weight_factor": self.weight_factor,
        }
        save_tensors(path, tensors, record)

    def resume(self, path: Path | None) -> list[Row]:
        """Continue from a checkpoint where there is one; gives the epochs it has."""
        if path is None or not path.is_file():
            return []
        tensors, record = load_tensors(path)
        if record.get("training") != self._fingerprint():
            raise InputError(
                f"{path} belongs to a training with other settings or data. Delete it to start "
                "afresh, or restore the settings to continue it."
            )
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        restore(self.model, state, path)
        self._make_optimizer()  # loading makes Brevitas renew the scales of weights
        for i, p in enumerate(self._ordered):
            for stored, key in _STATE.items():
                if f"{stored}.{i}" in tensors:
                    value = tensors[f"{stored}.{i}"]
                    # AdamW counts its steps on the CPU.
                    self.optimizer.state[p][key] = value if key == "step" else value.to(p.device)
        self.weaken(record["weight_factor"])
        history: list[Row] = record["history"]
        return history

    def _fingerprint(self) -> str:
        """What the training is, so that another's checkpoint is not continued by mistake."""
        about: dict[str, Any] = {"settings": asdict(self.settings), "images": len(self.images)}
        about["criterion"] = getattr(self.criterion, "preset", "plain")
        about["shapes"] = [list(p.shape) for p in self.parameters]
        return sha256_text(repr(about))


def _mix(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


def _rate(done: float) -> float:
    """Learning-rate factor: linear over the first tenth, a cosine to 0, then 0.05 (recovery)."""
    if done >= 1:
        return 0.05
    if done < 0.1:
        return done / 0.1 * 0.9 + 0.1
    return 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))


def augmented(images: Tensor, kind: str, generator: Generator) -> Tensor:
    """A float32 batch (N, C, H, W) shifted by up to an eighth, and for "flip-shift" mirrored."""
    if kind == "none":
        return images
    shifted = random_shift(images, max(1, images.shape[2] // 8), generator)
    return random_flip(shifted, generator) if kind == "flip-shift" else shifted
