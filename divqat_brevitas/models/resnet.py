"""Residual networks whose sums an integer engine can add.

The float network is the paper's (He et al., "Deep Residual Learning for Image Recognition", CVPR
2016) with the stem that is usual for 32x32 images: one 3x3 convolution, no pooling. Each block
marks its two branches with one ``Join``, which the swap makes one signed quantizer: both branches
get one scale, and their sum is a sum of integers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from divqat_brevitas.quant.swappable import Join


@dataclass(frozen=True)
class ResidualArchitecture:
    """A stem, stages of basic blocks, global average pooling and one linear layer.

    Attributes:
        blocks: basic blocks of each stage; from the second on a stage halves the sides.
        widths: channels of each stage; the stem has those of the first.
        minimum: smallest image side.
        about: what it is for.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    minimum: int
    about: str

    def layers(self, channels: int, classes: int) -> list[nn.Module]:
        """Fresh layers for images of so many channels, to be called one after another."""
        layers = [*conv_bn(channels, self.widths[0], 3, 1), nn.ReLU(), *self._stages()]
        head = nn.Linear(self.widths[-1], classes)
        return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]

    def _stages(self) -> Iterator[nn.Module]:
        inputs = self.widths[0]
        for stage, (count, outputs) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for block in range(count):
                yield BasicBlock(inputs, outputs, stride=2 if stage > 0 and block == 0 else 1)
                inputs = outputs


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, a 1x1 convolution where shapes change.

    Args:
        inputs: channels of its input.
        outputs: channels of its output.
        stride: of the first convolution and of the shortcut.

    Example:
        >>> import torch
        >>> BasicBlock(4, 8, stride=2)(torch.rand(2, 4, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, 3, 1)
        self.body = nn.Sequential(*first, nn.ReLU(), *second)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Sequential(*([] if same else conv_bn(inputs, outputs, 1, stride)))
        self.join = Join()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        out: Tensor = self.relu(self.join(self.body(x)) + self.join(self.shortcut(x)))
        return out


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias that keeps the sides but for its stride, and batch norm."""
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]
