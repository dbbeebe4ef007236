"""Layouts and precisions in which a network trains fast, and augmentation of its images."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from divqat_brevitas.quant.fused import requantizing

PRECISIONS = ("float32", "bfloat16")


def channels_last(images: Tensor) -> Tensor:
    """A batch with channels last in memory; same shape, same values.

    Also for one channel, where ``.contiguous`` sees nothing to do and the kernels behind it
    would take the layout for the plain one.
    """
    if images.dim() != 4:
        return images
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)


@contextmanager
def fast_kernels(model: nn.Module, precision: str = "float32") -> Iterator[None]:
    """Keep what leaves convolution and linear layers channels-last and float32.

    With "bfloat16" these layers multiply in bfloat16 (their operands are rounded to 8
    significant bits, the sums are float32); quantizers, batch norm and loss see float32.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> with fast_kernels(net, "bfloat16"):
        ...     out = net(torch.rand(2, 1, 8, 8))
        >>> out.dtype, out.is_contiguous(memory_format=torch.channels_last)
        (torch.float32, True)
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(_settle) for layer in layers]
    device = next((p.device.type for p in model.parameters()), "cpu")
    try:
        # In bfloat16 convolutions keep a copy of their own: computing it again saves no memory.
        with (
            torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"),
            requantizing() if precision == "float32" else nullcontext(),
        ):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _settle(layer: nn.Module, inputs: Any, output: Any) -> Any:
    if not isinstance(output, Tensor):  # Brevitas' QuantTensor: its parts belong together
        return output
    if output.dtype == torch.bfloat16:
        output = output.float()
    if output.dim() == 4:
        return output.contiguous(memory_format=torch.channels_last)
    return output


def random_shift(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Shift each image by its own number of pixels in [-shift, shift]; zeros fill the border."""
    if shift == 0:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (shift, shift, shift, shift)).permute(0, 2, 3, 1)
    offsets = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
    rows = (offsets[0] + torch.arange(height))[:, :, None]
    columns = (offsets[1] + torch.arange(width))[:, None, :]
    return padded[torch.arange(count)[:, None, None], rows, columns].permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    flipped = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(3), images)
