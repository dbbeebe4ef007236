"""What the exported model returns: only logits, with an axis for the batch, each for itself."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from divqat_brevitas.errors import InputError
from divqat_brevitas.inference import as_logits, plain
from fpga_flow.export.observe import FloatArray, logits_of


def logits_alone(model: nn.Module, image: Tensor) -> nn.Module:
    """The model itself, or wrapped where its output holds more than the logits.

    Args:
        model: in evaluation mode.
        image: (1, ...) one input.

    Raises:
        InputError: an output that holds no logits, or logits without an axis for the batch.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> logits_alone(net, torch.zeros(1, 1, 2, 2)) is net
        True
    """
    name = type(model).__name__
    try:
        with torch.no_grad():
            output = model(image)
    except Exception:  # the exporter runs the model too, and says what is wrong with it
        return model
    logits = as_logits(output, 1, name)
    value: object = plain(output)
    if not isinstance(value, Tensor):
        return _Logits(model)
    if value.dim() < 2:
        raise InputError(
            f"{name} returns logits of shape {tuple(logits[0].shape)} for one image: without an "
            "axis for the batch its file would be wrong for more images. Use flatten(1), or "
            "squeeze with the axes named, in place of squeeze()."
        )
    return model


def refuse_batch_dependence(model: nn.Module, images: FloatArray) -> None:
    """Raise if the model answers an image otherwise alone than among others.

    A file answers one image at a time. Batch norm without running statistics, and averages over
    the batch, move the logits of every image; float noise moves a label at a threshold now and
    then. So most of a few images must have moved by more than a thousandth of the largest logit.

    Args:
        model: the torch model.
        images: float32 (N, ...).

    Raises:
        InputError: it does.
    """
    few = images[:8]
    together = logits_of(model, few)
    alone = np.concatenate([logits_of(model, few[i : i + 1]) for i in range(len(few))])
    moved = np.abs(alone - together).max(axis=1) > 1e-3 * np.abs(together).max()
    if 2 * moved.sum() > len(few):
        norms = [
            f"{name} ({type(m).__name__})"
            for name, m in model.named_modules()
            if isinstance(m, _BatchNorm) and m.running_mean is None
        ]
        cause = f"{', '.join(norms)} keeps no running statistics" if norms else "the forward pass"
        raise InputError(
            f"the answer of {type(model).__name__} to an image depends on the other images of its "
            f"batch (cause: {cause}), but an exported file takes each image for itself. Keep "
            "statistics (track_running_stats=True) and train again, or average over channels and "
            "pixels only."
        )


class _Logits(nn.Module):
    """A network of which only the logits are wanted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return as_logits(self.network(images), len(images), type(self.network).__name__)
