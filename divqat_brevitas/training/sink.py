"""Which class makes the cheapest decoy."""

import torch
from torch import Generator, Tensor, nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.quant.outliers import synthetic_outliers
from divqat_brevitas.training.evaluate import logits_of, to_input

_MOST = 5000


def sink_class(reference: nn.Module, images: Tensor, seed: int = 0) -> int:
    """The class that a network gives most synthetic outliers.

    As ``decoy_class`` it asks least of the network, which sends much that it does not know there
    anyway. On Fashion-MNIST that is the bag, with half of the outliers.

    Args:
        reference: the float network, trained.
        images: (N, C, H, W) uint8 training images; the first 5,000 are used.
        seed: of the outliers.

    Raises:
        InputError: no images.

    Example:
        >>> images = torch.randint(0, 256, (64, 1, 8, 8)).byte()
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        >>> 0 <= sink_class(net, images) < 4
        True
    """
    if len(images) == 0:
        raise InputError("sink_class needs training images to make outliers from, and got none.")
    made = synthetic_outliers(to_input(images[:_MOST]), Generator().manual_seed(seed))
    guesses = logits_of(reference, (255 * made).round().to(torch.uint8)).argmax(dim=1)
    return int(guesses.bincount().argmax())
