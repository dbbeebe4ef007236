"""Training of a surrogate on a transfer set, and the random changes of its images.

Only the attacker's transfer set is used: where a best epoch is selected, it is selected on a part
of that set which is held out of the gradient steps, never on test data.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from divqat_brevitas.errors import CheckedSettings, CheckFailedError, InputError, OneOf, Within
from divqat_brevitas.extraction.arrays import Responses, substream, to_float
from divqat_brevitas.extraction.predictor import TorchPredictor
from divqat_brevitas.inference import to_input
from divqat_brevitas.training.kernels import random_flip, random_shift


def mixup(
    images: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend the batch with itself in another order: Zhang et al., ICLR 2018, eq. (1).

    A batch has one weight, drawn from Beta(alpha, alpha), as in the authors' code.
    """
    weight = float(rng.beta(alpha, alpha))
    partners = torch.from_numpy(rng.permutation(len(images)))
    return (
        weight * images + (1 - weight) * images[partners],
        weight * targets + (1 - weight) * targets[partners],
    )


def cutmix(
    images: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Paste a box of another image of the batch: Yun et al., ICCV 2019, sec. 3.

    The centre of the box is uniform, its sides are proportional to the root of a Beta(alpha, alpha)
    draw; targets mix by the area that it covers.
    """
    height, width = images.shape[2:]
    side = float(np.sqrt(1 - rng.beta(alpha, alpha)))
    top, bottom = _interval(int(rng.integers(height)), side * height, height)
    left, right = _interval(int(rng.integers(width)), side * width, width)
    partners = torch.from_numpy(rng.permutation(len(images)))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, weight * targets + (1 - weight) * targets[partners]


def _interval(centre: int, length: float, limit: int) -> tuple[int, int]:
    start = int(centre - length // 2)
    return max(start, 0), min(start + int(length), limit)


Epoch = dict[str, float]
OnEpoch = Callable[[Epoch], None] | None
"""Called with each row of a training's history."""
SCHEDULES = ("one-cycle", "cosine")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALLEST_HOLDOUT = 20


@dataclass(frozen=True, kw_only=True)
class SurrogateTraining(CheckedSettings):
    """Settings of the training: SGD with Nesterov momentum on soft-label cross-entropy.

    Attributes:
        batch_size: images in one step.
        learning_rate: peak of the schedule.
        schedule: "one-cycle" (warm-up over the first 30 %, then down) or "cosine".
        momentum: Nesterov momentum.
        weight_decay: L2 penalty on all parameters.
        clip_norm: gradients are clipped to this norm.
        shift: augmentation: largest random shift in pixels; zeros fill the border; 0 is off.
        flip: augmentation: mirror half of the images left to right; for natural images, not for
            letters and digits.
        mixup: augmentation: blend pairs of images and targets with a Beta(mixup, mixup) weight
            (Zhang et al., ICLR 2018); 0 is off.
        cutmix: augmentation: paste boxes of other images, targets mixed by area (Yun et al.,
            ICCV 2019); 0 is off. With mixup too, each step does one of the two at random.
        holdout: part of the transfer set, in [0, 0.5], held out to choose the best epoch by
            agreement with the responses; with 0, or fewer than 20 images in it, nothing is held out
            and the last epoch is used. It is off by default: with a learning rate that ends at
            zero, training on every response gives better clones.
        precision: of the convolutions and products: "float32", or "bfloat16" (weights, batch norm
            and loss stay float32), on recent processors more than twice as fast.
        patience: stop after this number of epochs without a better one on the held-out part; None:
            train to the end.
        device: of the training, such as "cpu", "cuda" or "cuda:1"; images are copied from the CPU
            batch by batch, and the clone ends on the CPU. Random draws are the same on all
            devices, the last bits of sums are not. Data-free attacks train on the CPU.
    """

    batch_size: Annotated[int, Within(low=2)] = 64
    learning_rate: Annotated[float, Within(above=0)] = 0.05
    schedule: Annotated[str, OneOf("learning-rate schedule", SCHEDULES)] = "one-cycle"
    momentum: Annotated[float, Within(above=0, below=1)] = 0.9
    weight_decay: Annotated[float, Within(low=0)] = 5e-4
    clip_norm: Annotated[float, Within(above=0)] = 5.0
    shift: Annotated[int, Within(low=0)] = 0
    flip: bool = False
    mixup: Annotated[float, Within(0, 100)] = 0.0
    cutmix: Annotated[float, Within(0, 100)] = 0.0
    holdout: Annotated[float, Within(0, 0.5)] = 0.0
    patience: Annotated[int | None, Within(low=1)] = None
    precision: Annotated[str, OneOf("precision", PRECISIONS)] = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_device(self.device)
        if self.patience is not None and not self.holdout:
            raise InputError("SurrogateTraining: patience needs a holdout above 0.")

    def autocast(self) -> torch.autocast:
        """The context that forward passes run in: ``precision`` on ``device``."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise InputError(
            f"surrogate training: device={name!r} is none of PyTorch's. Write 'cpu' or 'cuda'."
        ) from e
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < count):
        return
    raise InputError(
        f"surrogate training: device={name!r} is missing: PyTorch has the CPU and {count} CUDA "
        "devices."
    )


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows of -sum(targets * log_softmax(logits)); all-zero targets add nothing."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def _plain_objective(outputs: Any, targets: Tensor) -> Tensor:
    return soft_cross_entropy(outputs.float(), targets)


def train_surrogate(
    model: nn.Module,
    images: NDArray[Any],
    targets: Responses,
    *,
    epochs: int,
    seed: int,
    settings: SurrogateTraining | None = None,
    on_epoch: OnEpoch = None,
    objective: Callable[[Any, Tensor], Tensor] = _plain_objective,
) -> list[Epoch]:
    """Train ``model`` in place on (images, targets); it ends in eval mode, on the CPU.

    Its weights are those of the last epoch, or of the best one where a part is held out. The same
    seed, data and number of threads give the same weights, bit for bit. The global random state is
    neither read nor changed.

    Args:
        model: images to logits (N, classes).
        images: float32 (N, C, H, W) in [0, 1], or uint8, which is converted batch by batch; at
            least 2.
        targets: float32 (N, classes), rows of probabilities, not necessarily summing to 1; images
            whose row is all zero are left out.
        epochs: number of passes over the trained part, at least 1.
        seed: of the held-out part, the order of images and the augmentation.
        settings: see :class:`SurrogateTraining`.
        on_epoch: called after each epoch with its history row.
        objective: loss of the model's output in training mode, for targets (N, classes); in eval
            mode the model must return logits. By default :func:`soft_cross_entropy`.

    Returns:
        One row an epoch: "epoch" (from 1), "loss" (mean training loss), and "heldout_agreement"
        (fraction of 1) where a part is held out.

    Raises:
        InputError: fewer than 2 images, fewer than 2 responses that are not zero, or epochs below
            1.
        CheckFailedError: the loss is no longer finite.
    """
    settings = settings or SurrogateTraining()
    if len(images) < 2 or len(images) != len(targets):
        raise InputError(
            f"a surrogate needs at least 2 answered queries to train on and one response an image, "
            f"but got {len(images)} images and {len(targets)} responses."
        )
    if epochs < 1:
        raise InputError(f"epochs must be at least 1, but is {epochs}.")
    informative = np.flatnonzero(targets.any(axis=1))
    if len(informative) < 2:
        raise InputError(
            "the responses contain nothing to train on: all entries are zero. The oracle rounds "
            "too coarsely for the number of classes."
        )
    order = substream(seed, "holdout").permutation(informative)
    held = int(len(informative) * settings.holdout)
    held = held if held >= SMALLEST_HOLDOUT else 0
    heldout, rest = order[:held], order[held:]
    # Channels last: the layout that CPU convolutions are fastest in.
    x = torch.from_numpy(images[rest]).to(memory_format=torch.channels_last)
    y = torch.from_numpy(targets[rest])
    device = torch.device(settings.device)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    cast = settings.autocast()

    generator = torch.Generator().manual_seed(int(substream(seed, "steps").integers(2**62)))
    mix = substream(seed, "mix")
    steps = -(-len(rest) // settings.batch_size)
    optimizer, schedule = sgd(model, settings, epochs * steps)
    history: list[Epoch] = []
    best, best_epoch, best_state = -1.0, 0, None
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        # Parts of equal size: a last batch of one image would break batch normalisation.
        for part in torch.randperm(len(rest), generator=generator).tensor_split(steps):
            batch = to_input(x[part]) if x.dtype == torch.uint8 else x[part]
            inputs, responses = _augment(batch, y[part], settings, generator, mix)
            with cast:
                outputs = model(inputs.to(device))
            loss = objective(outputs, responses.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(part)
        row: Epoch = {"epoch": epoch, "loss": total / len(rest)}
        if not np.isfinite(row["loss"]):
            raise CheckFailedError(
                f"the clone's training diverged in epoch {epoch} (loss {row['loss']}). "
                f"Lower its learning rate, now {settings.learning_rate}."
            )
        if held:
            predicted = TorchPredictor(model).predict(to_float(images[heldout])).argmax(axis=1)
            agreement = float((predicted == targets[heldout].argmax(axis=1)).mean())
            row["heldout_agreement"] = agreement
            # On a tie the later epoch wins: it has seen the smaller learning rate.
            if agreement >= best:
                best, best_epoch, best_state = agreement, epoch, copy.deepcopy(model.state_dict())
        history.append(row)
        if on_epoch is not None:
            on_epoch(row)
        if held and settings.patience is not None and epoch - best_epoch >= settings.patience:
            break
    if best_state is not None:
        model.load_state_dict(best_state)
    model.to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.eval()
    return history


def _augment(
    images: Tensor,
    targets: Tensor,
    settings: SurrogateTraining,
    generator: torch.Generator,
    mix: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    images = random_shift(images, settings.shift, generator)
    if settings.flip:
        images = random_flip(images, generator)
    both = settings.mixup > 0 and settings.cutmix > 0
    if settings.cutmix > 0 and not (both and mix.random() < 0.5):
        return cutmix(images, targets, settings.cutmix, mix)
    if settings.mixup > 0:
        return mixup(images, targets, settings.mixup, mix)
    return images, targets


def sgd(
    model: nn.Module, settings: SurrogateTraining, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer and the learning-rate schedule of a clone's training.

    Example:
        >>> optimizer, schedule = sgd(nn.Linear(2, 2), SurrogateTraining(schedule="cosine"), 10)
        >>> schedule.get_last_lr()
        [0.05]
    """
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    schedule: torch.optim.lr_scheduler.LRScheduler
    if settings.schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, cycle_momentum=False
        )
    return optimizer, schedule
