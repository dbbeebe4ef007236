"""Networks a thief may train: float, batch-normalised, for images from 8×8 upwards."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from divqat_brevitas.errors import InputError, unknown_name

SMALLEST_SIDE = 8


def _conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def _vgg(shape: tuple[int, int, int], classes: int, stages: Iterable[tuple[int, ...]]) -> nn.Module:
    """Stages of 3×3 convolutions, each ended by a 2×2 max pooling, and one linear layer."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for stage in stages:
        for outputs in stage:
            layers += [*_conv_bn(channels, outputs), nn.ReLU()]
            channels = outputs
        layers.append(nn.MaxPool2d(2))
        height, width = height // 2, width // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, classes))


class _ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., CVPR 2016), a 1×1 one where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(inputs, outputs, stride=stride), nn.ReLU(), *_conv_bn(outputs, outputs)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*_conv_bn(inputs, outputs, 1, stride))
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def _vgg_small(shape: tuple[int, int, int], classes: int) -> nn.Module:
    return _vgg(shape, classes, [(32,), (64,), (128,)])


def _vgg_medium(shape: tuple[int, int, int], classes: int) -> nn.Module:
    return _vgg(shape, classes, [(32, 32), (64, 64), (128, 128)])


def _resnet_small(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """ResNet-8: the CIFAR residual network of He et al. (sec. 4.2) with n = 1."""
    return nn.Sequential(
        *_conv_bn(shape[0], 16),
        nn.ReLU(),
        _ResidualBlock(16, 16, 1),
        _ResidualBlock(16, 32, 2),
        _ResidualBlock(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


def _mlp(shape: tuple[int, int, int], classes: int) -> nn.Module:
    inputs = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(inputs, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU()),
        *(nn.Linear(256, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU()),
        nn.Linear(256, classes),
    )


SURROGATES: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "vgg-small": _vgg_small,
    "vgg-medium": _vgg_medium,
    "resnet-small": _resnet_small,
    "mlp": _mlp,
}


def check_image_shape(shape: tuple[int, ...]) -> None:
    """Refuse an image shape that the surrogates cannot take.

    Raises:
        InputError: not (channels, height, width), or a side below 8.
    """
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < SMALLEST_SIDE:
        raise InputError(
            f"surrogates take images (channels, height, width) with sides of at least "
            f"{SMALLEST_SIDE}, but got {tuple(shape)}."
        )


def build_surrogate(name: str, shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """A freshly initialised surrogate network.

    Args:
        name: "vgg-small" (3 convolutions), "vgg-medium" (6), "resnet-small" (ResNet-8) or "mlp".
        shape: (channels, height, width) of an image, sides of at least 8.
        classes: number of logits, at least 2.
        seed: of the initial weights; the global random state is left as it was.

    Raises:
        InputError: unknown name, image too small, or fewer than two classes.

    Example:
        >>> net = build_surrogate("vgg-small", (3, 32, 32), 10, seed=0)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if name not in SURROGATES:
        raise unknown_name("surrogate", name, SURROGATES)
    check_image_shape(shape)
    if classes < 2:
        raise InputError(f"a classifier needs at least 2 classes, but got {classes}.")
    with torch.random.fork_rng(devices=[]):
        # The CPU generator alone: torch.manual_seed would reseed other devices as well.
        torch.default_generator.manual_seed(seed)
        return SURROGATES[name](shape, classes)
