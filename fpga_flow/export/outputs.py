"""What the exported model returns: logits alone, with an axis for the batch."""

import torch
from torch import Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.inference import as_logits, plain


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


class _Logits(nn.Module):
    """A network of which only the logits are wanted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return as_logits(self.network(images), len(images), type(self.network).__name__)
