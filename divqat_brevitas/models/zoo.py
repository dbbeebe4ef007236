"""The networks: chains of convolution blocks and linear layers, residual and separable ones."""

from dataclasses import dataclass

import torch
from torch import nn

from divqat_brevitas.errors import InputError, unknown_name
from divqat_brevitas.models.mobilenet import SeparableArchitecture
from divqat_brevitas.models.resnet import ResidualArchitecture


@dataclass(frozen=True)
class Architecture:
    """A chain of convolution blocks, then linear layers.

    Attributes:
        blocks: (output channels, padding, max pooling after it), each a convolution + batch
            norm + ReLU.
        hidden: widths of the hidden linear layers (+ batch norm + ReLU).
        minimum: smallest image side that survives the pooling.
        about: what it is for.
        kernel: side of the convolutions' kernels.
    """

    blocks: tuple[tuple[int, int, bool], ...]
    hidden: tuple[int, ...]
    minimum: int
    about: str
    kernel: int = 3


MODELS: dict[str, Architecture | ResidualArchitecture | SeparableArchitecture] = {
    "mlp": Architecture((), (64, 64), 1, "dense only: the smallest FINN build"),
    "tfc": Architecture((), (64, 64, 64), 1, "FINN's TFC (Umuroglu et al., FPGA 2017), dense only"),
    "lfc": Architecture((), (1024,) * 3, 1, "FINN's LFC, as TFC with 2.9 M weights on 28x28"),
    "digits-cnn": Architecture(
        ((8, 1, False), (16, 1, True)), (), 2, "8x8 digits; fits any FPGA"
    ),
    "mnist-cnn": Architecture(
        ((8, 1, True), (16, 1, True), (32, 1, True)), (), 8, "28x28 grey, about 9k weights"
    ),
    "lenet": Architecture(
        ((8, 0, True), (16, 0, True)), (64,), 12, "LeNet-size, 28x28; fits an ECP5-85F"
    ),
    "lenet5": Architecture(
        ((6, 2, True), (16, 0, True)), (120, 84), 12,
        "LeNet-5 (LeCun et al., 1998): 5x5 kernels, 28x28, 62k weights", kernel=5,
    ),
    "fashion-cnn": Architecture(
        ((16, 1, True), (32, 1, True), (64, 1, True)), (), 8,
        "Fashion-MNIST, 28x28 grey, 23k convolution weights",
    ),
    "cifar-cnn": Architecture(
        ((32, 1, True), (64, 1, True), (128, 1, True)), (), 8,
        "CIFAR-10, 93k convolution weights",
    ),
    "vgg-tiny": Architecture(
        ((32, 1, False), (32, 1, True), (64, 1, False), (64, 1, True), (128, 1, True)),
        (), 8, "CIFAR-10, 140k convolution weights; fits an ECP5-85F",
    ),
    "vgg": Architecture(
        (
            (64, 1, False), (64, 1, True), (128, 1, False), (128, 1, True),
            (256, 1, False), (256, 1, True),
        ),
        (256,), 8, "CIFAR-10, VGG-style",
    ),
    "cnv": Architecture(
        (
            (64, 0, False), (64, 0, True), (128, 0, False), (128, 0, True),
            (256, 0, False), (256, 0, False),
        ),
        (512, 512), 32, "FINN's CNV shape (Umuroglu et al., FPGA 2017), 32x32, 1.54 M weights",
    ),
    "resnet-8": ResidualArchitecture(
        (1, 1, 1), (16, 32, 64), 8,
        "ResNet-8 in MLPerf Tiny's geometry, CIFAR-10, 78k weights; fits an ECP5-85F",
    ),
    "resnet-20": ResidualArchitecture(
        (3, 3, 3), (16, 32, 64), 8,
        "ResNet-20 (He et al., CVPR 2016) for CIFAR-10, 273k weights",
    ),
    "mobilenet-tiny": SeparableArchitecture(
        16, ((32, 2), (64, 1), (128, 2), (128, 1), (256, 2)), 8,
        "separable convolutions after MobileNet, CIFAR-10, 68k weights; fits an ECP5-85F",
    ),
    "resnet-18": ResidualArchitecture(
        (2, 2, 2, 2), (64, 128, 256, 512), 8,
        "ResNet-18 (He et al., CVPR 2016) with a 3x3 stem, 11.2 M weights; for a GPU",
    ),
}  # fmt: skip


def build_model(
    name: str, shape: tuple[int, int, int], classes: int, seed: int = 0
) -> nn.Sequential:
    """A float network for (C, H, W) images.

    The same seed gives the same weights; the global random state is not touched.

    Args:
        name: a key of ``MODELS``.
        shape: channels, height, width of the images.
        classes: number of outputs (logits).
        seed: of the initial weights.

    Raises:
        InputError: unknown name; an image too small for the network's pooling.

    Example:
        >>> build_model("digits-cnn", (1, 8, 8), 10)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    architecture = MODELS[name]
    channels, height, width = shape
    if min(height, width) < architecture.minimum:
        raise InputError(
            f"model {name!r} needs images of at least {architecture.minimum}x"
            f"{architecture.minimum}, not {height}x{width}. Take another model or larger images."
        )
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not isinstance(architecture, Architecture):
            return nn.Sequential(*architecture.layers(channels, classes))
        kernel = architecture.kernel
        for out, padding, pool in architecture.blocks:
            grown = 2 * padding - kernel + 1
            layers += [nn.Conv2d(channels, out, kernel, padding=padding, bias=False)]
            layers += [nn.BatchNorm2d(out), nn.ReLU()]
            height, width = height + grown, width + grown
            if pool:
                layers += [nn.MaxPool2d(2)]
                height, width = height // 2, width // 2
            channels = out
        layers += [nn.Flatten()]
        features = channels * height * width
        for hidden in architecture.hidden:
            layers += [nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
            features = hidden
        layers += [nn.Linear(features, classes)]
    return nn.Sequential(*layers)
