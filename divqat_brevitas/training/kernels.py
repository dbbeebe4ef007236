"""Which kernels a training step runs: channels-last, joined, and bfloat16 if asked for.

Convolution, pooling and batch norm are faster on a CPU with channels last in memory; a ReLU and
the quantizer behind it are faster in one; and what a quantizer can compute again is not kept for
the backward pass. Nothing of it stays in the model: parameters keep their layout and float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from divqat_brevitas.quant.fused import requantizing
from divqat_brevitas.quant.rectify import rectifying

PRECISIONS = ("float32", "bfloat16")


def channels_last(images: Tensor) -> Tensor:
    """A batch with channels last in memory; same shape, same values.

    Also for one channel, where ``.contiguous`` sees nothing to do and the kernels behind it
    would take the layout for the plain one.

    Args:
        images: (N, C, H, W), or another number of dimensions, which is given back as it is.
    """
    if images.dim() != 4:
        return images
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)


@contextmanager
def fast_kernels(model: nn.Module, precision: str = "float32") -> Iterator[None]:
    """Keep what leaves convolution and linear layers channels-last and float32.

    With "bfloat16" these layers multiply in bfloat16 (their operands are rounded to 8
    significant bits, the sums are float32); quantizers, batch norm and loss see float32.

    Args:
        model: float or Brevitas network; has no hook of ours afterwards.
        precision: a member of ``PRECISIONS``.

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
            rectifying(model),
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
