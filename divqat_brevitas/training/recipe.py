"""The recipe that makes a victim: float network, quantize, calibrate, loss, guard, train, balance.

The train stage, the benchmark and the search for losses make their victims here, so a victim
with one recipe has the same weights everywhere, to the last bit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from divqat_brevitas.copies import freeze_reference
from divqat_brevitas.data import dataset_info, load
from divqat_brevitas.data.arrays import Shape
from divqat_brevitas.data.pools import fit
from divqat_brevitas.errors import InputError
from divqat_brevitas.models import build_model, quantize
from divqat_brevitas.quant.input_fit import calibrate
from divqat_brevitas.quant.loss import DivQATLoss, loss_settings
from divqat_brevitas.short_repr import ShortRepr
from divqat_brevitas.training.loop import Criterion, Data, PlainLoss, Row, TrainSettings
from divqat_brevitas.training.reject_class import add_reject_output, balanced_row, loss_for
from divqat_brevitas.training.trainer import AccuracyGuard, train

CALIBRATION_IMAGES = 500


@dataclass(frozen=True, kw_only=True)
class VictimRecipe(ShortRepr):
    """What a victim is made of.

    Attributes:
        dataset: registry name of the data set.
        model: a key of ``divqat_brevitas.models.MODELS``.
        variant: "float"; "ptq", which is calibrated and not trained; "qat"; "divqat".
        settings: of the training; ``settings.seed`` also seeds the initial weights.
        bits: such as "w4a4"; a float victim ignores them.
        quantizers: further keyword arguments of ``models.quantize``.
        preset: of the loss of a divqat victim.
        changes: of the preset, any field of ``LossSettings``.
        guard: validation accuracy (a fraction of 1) that a divqat victim may lose to its twin.
        decoy_cost: validation accuracy (a fraction of 1) below the twin's at which the decoy is
            balanced after training; None: the decoy stays as training leaves it.
        shape: images are fitted to this (C, H, W); None leaves them as they are.
        root: data folder; None: the cache.
    """

    dataset: str
    model: str
    variant: Literal["float", "ptq", "qat", "divqat"]
    settings: TrainSettings
    bits: str = "w4a4"
    quantizers: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "nasty"
    changes: Mapping[str, Any] = field(default_factory=dict)
    guard: float = 0.02
    decoy_cost: float | None = None
    shape: Shape | None = None
    root: Path | None = None

    def data(self, split: str) -> Data:
        """One split: uint8 images (N, C, H, W) and int64 labels (N,)."""
        images, labels = load(self.dataset, split, self.root)
        if self.shape is not None:
            images = fit(images, self.shape)
        # A copy: stored images are mapped read-only.
        return torch.tensor(images), torch.tensor(labels)

    def untrained(self) -> nn.Module:
        """The network with initial weights: float, or quantized and not yet calibrated."""
        info = dataset_info(self.dataset)
        shape = self.shape or info.shape
        outputs = len(info.classes) + self.reject_output
        network = build_model(self.model, shape, outputs, self.settings.seed)
        return network if self.variant == "float" else self.quantized(network)

    @property
    def reject_output(self) -> bool:
        """Whether the network has an output more than the data set has classes."""
        # Other victims have no loss: their preset may be any text.
        divqat = self.variant == "divqat"
        return divqat and loss_settings(self.preset, **self.changes).reject_output

    def quantized(self, network: nn.Module) -> nn.Module:
        """A quantized copy of a float network."""
        return quantize(network, self.bits, **self.quantizers)

    def calibrated(self, reference: nn.Module) -> nn.Module:
        """Where quantized training starts: the reference, quantized and calibrated."""
        start = add_reject_output(reference) if self.reject_output else reference
        network = self.quantized(start)
        calibrate(network, self.data("train")[0][:CALIBRATION_IMAGES])
        return network

    def loss(self, reference: nn.Module) -> DivQATLoss:
        """The loss of a divqat victim, with its outliers."""
        frozen = freeze_reference(reference)
        return loss_for(
            frozen, self.preset, self.dataset, self.root, self.shape, **dict(self.changes)
        )


def train_victim(
    recipe: VictimRecipe,
    *,
    reference: nn.Module | None = None,
    twin: Sequence[float] = (),
    checkpoint: Path | None = None,
    name: str = "victim",
    on_start: Callable[[Sequence[Row]], None] = lambda rows: None,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> tuple[nn.Module, list[Row]]:
    """Make a victim.

    Args:
        recipe: what it is made of.
        reference: the trained float network; every variant but "float" needs it.
        twin: validation accuracy of the plain-QAT twin after each epoch; "divqat" needs it.
        checkpoint: as in ``train``.
        name: for messages.
        on_start: as in ``train``.
        on_epoch: as in ``train``.

    Returns:
        The network in evaluation mode, and one row an epoch; none for "ptq". The last row of a
        balanced decoy has the accuracy after it, and ``reject_shift``.

    Raises:
        InputError: no reference or no twin where one is needed, missing data, bad settings.
        TrainingDivergedError: the loss became NaN or infinite.
        GuardError: the victim stays below its twin by more than ``recipe.guard``.

    Example:
        >>> settings = TrainSettings(epochs=1)
        >>> recipe = VictimRecipe(
        ...     dataset="digits", model="mlp", variant="float", settings=settings
        ... )
        >>> network, history = train_victim(recipe)
        >>> len(history)
        1
    """
    criterion: Criterion = PlainLoss()
    guard = None
    if recipe.variant == "float":
        network = recipe.untrained()
    else:
        if reference is None:
            raise InputError(f"{name}: a {recipe.variant} victim needs its float reference.")
        network = recipe.calibrated(reference)
        if recipe.variant == "divqat":
            if not twin:
                raise InputError(f"{name}: a divqat victim needs its plain-QAT twin's accuracies.")
            criterion = recipe.loss(reference)
            guard = AccuracyGuard(tuple(twin), recipe.guard)
    if recipe.variant == "ptq":
        return network.eval(), []
    val = recipe.data("val")
    result = train(
        network,
        criterion,
        train=recipe.data("train"),
        val=val,
        settings=recipe.settings,
        checkpoint=checkpoint,
        guard=guard,
        name=name,
        on_start=on_start,
        on_epoch=on_epoch,
    )
    # Rows that come from a checkpoint have their keys in another order.
    history = [dict(sorted(row.items())) for row in result.history]
    if recipe.variant == "divqat" and recipe.decoy_cost is not None:
        loss = loss_settings(recipe.preset, **recipe.changes)
        if loss.ood_weight > 0:
            floor = twin[-1] - recipe.decoy_cost
            history[-1] = balanced_row(network, loss.decoy_class, val, floor, history[-1])
    return network.eval(), history
