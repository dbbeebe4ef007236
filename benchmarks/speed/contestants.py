"""Who takes part in the training benchmark: one network, five ways to train it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from brevitas.quant.scaled_int import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from torch import Generator, Tensor, nn

from divqat_brevitas import DivQATLoss, freeze_reference, swap_quantizers
from divqat_brevitas.models import build_model
from divqat_brevitas.training import TrainSettings, calibrate
from divqat_brevitas.training.loop import Criterion, Loop, PlainLoss

SHAPE, CLASSES, BITS = (3, 32, 32), 10, 4
NAMES = ("float", "stock", "ours", "nasty", "decoy")
_EPOCHS = 10
# Past the warm-up of the loss, so that its divergence and its outliers take part.
_EPOCH = 5


@dataclass
class Contestant:
    """A network in the middle of its training.

    Attributes:
        loop: the trainer's own, on a data set of one batch.
    """

    loop: Loop

    def step(self) -> None:
        """One step as in training: augmentation, both passes, clipping and the update."""
        self.loop.epoch(_EPOCH)


def batch(size: int) -> tuple[Tensor, Tensor]:
    """(size, 3, 32, 32) uint8 noise and (size,) int64 labels."""
    generator = Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, *SHAPE), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, CLASSES, (size,), generator=generator)


def networks(model: str, images: Tensor, calibrated: bool = True) -> dict[str, nn.Module]:
    """The float network, and swapped into it Brevitas' quantizers and ours, calibrated or not."""
    _, channels, height, width = images.shape
    reference = build_model(model, (channels, height, width), CLASSES)
    stock = swap_quantizers(
        reference,
        weight=Int8WeightPerChannelFloat.let(bit_width=BITS),
        act=Uint8ActPerTensorFloat.let(bit_width=BITS),
    )
    found = {"float": reference, "stock": stock, "ours": swap_quantizers(reference)}
    if calibrated:
        for name in ("stock", "ours"):
            calibrate(found[name], images)
    return found


def contestants(
    model: str, precision: str, size: int, names: tuple[str, ...] = NAMES
) -> Mapping[str, Contestant]:
    """The contestants, each with weights and an optimizer of its own.

    Args:
        model: a name of ``divqat_brevitas.models``.
        precision: "float32" or "bfloat16".
        size: images a batch.
        names: some of ``NAMES``: float; stock and ours are plain QAT with Brevitas' quantizers and
            with ours; nasty and decoy are ours with these presets of the loss.
    """
    data = batch(size)
    found = networks(model, data[0])
    settings = TrainSettings(
        epochs=_EPOCHS,
        batch_size=size,
        # Small: noise cannot be learnt, and the times shall not hang on where it leads.
        learning_rate=1e-4,
        augment="flip-shift",
        precision=precision,
    )

    def contestant(name: str) -> Contestant:
        criterion: Criterion = PlainLoss()
        if name in ("nasty", "decoy"):
            criterion = DivQATLoss(freeze_reference(found["float"]), name)
        network = copy.deepcopy(found.get(name, found["ours"]))
        return Contestant(Loop(network, criterion, data, settings, name))

    return {name: contestant(name) for name in names}
