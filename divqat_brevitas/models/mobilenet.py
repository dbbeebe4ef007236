"""Networks of depthwise separable convolutions, after MobileNet.

A separable convolution is a depthwise one, which looks at each channel's pixels, and a 1x1
convolution, which mixes the channels; batch norm and ReLU follow both (Howard et al., "MobileNets:
Efficient Convolutional Neural Networks for Mobile Vision Applications", arXiv:1704.04861). The
stem keeps the sides, as is usual for 32x32 images.
"""

from dataclasses import dataclass

from torch import nn

from divqat_brevitas.models.resnet import conv_bn


@dataclass(frozen=True)
class SeparableArchitecture:
    """A stem, separable convolutions, global average pooling and one linear layer.

    Attributes:
        stem: channels of the first convolution.
        blocks: (output channels, stride) of each separable convolution.
        minimum: smallest image side.
        about: what it is for.
    """

    stem: int
    blocks: tuple[tuple[int, int], ...]
    minimum: int
    about: str

    def layers(self, channels: int, classes: int) -> list[nn.Module]:
        """Fresh layers for images of so many channels, to be called one after another.

        Example:
            >>> network = SeparableArchitecture(4, ((8, 2),), 2, "small").layers(1, 3)
            >>> [layer.groups for layer in network if isinstance(layer, nn.Conv2d)]
            [1, 4, 1]
        """
        layers = [*conv_bn(channels, self.stem, 3, 1), nn.ReLU()]
        inputs = self.stem
        for outputs, stride in self.blocks:
            layers += [*conv_bn(inputs, inputs, 3, stride, groups=inputs), nn.ReLU()]
            layers += [*conv_bn(inputs, outputs, 1, 1), nn.ReLU()]
            inputs = outputs
        return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
