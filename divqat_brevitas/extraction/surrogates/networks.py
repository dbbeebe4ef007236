"""Networks of the clone: float, batch-normalised, for images of at least 8×8."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from divqat_brevitas.errors import InputError, unknown_name

SMALLEST_SIDE = 8
_NARROW = (16, 32, 64)  # He et al., CVPR 2016, sec. 4.2: the residual networks of CIFAR
_WIDE = (64, 128, 256, 512)  # ibid., table 1


def _conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def _vgg(shape: tuple[int, int, int], classes: int, stages: Iterable[tuple[int, ...]]) -> nn.Module:
    """Stages of 3×3 convolutions, each ended by a 2×2 max pooling, and one linear layer.

    A stage's last ReLU follows the pooling: the values and gradients are those of a ReLU before
    it, from a quarter of the pixels.
    """
    channels, height, width = shape
    layers: list[nn.Module] = []
    for stage in stages:
        for outputs in stage:
            layers += [*_conv_bn(channels, outputs), nn.ReLU()]
            channels = outputs
        layers.insert(-1, nn.MaxPool2d(2))
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


def _residual(
    shape: tuple[int, int, int], classes: int, widths: tuple[int, ...], counts: tuple[int, ...]
) -> nn.Module:
    """A 3×3 stem, stages of residual blocks, of which all but the first halve the sides, a head."""
    blocks: list[nn.Module] = []
    channels = widths[0]
    for stage, (outputs, count) in enumerate(zip(widths, counts, strict=True)):
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(_ResidualBlock(channels, outputs, stride))
            channels = outputs
    return nn.Sequential(
        *_conv_bn(shape[0], widths[0]),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
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
    "vgg-small": partial(_vgg, stages=[(32,), (64,), (128,)]),
    "vgg-medium": partial(_vgg, stages=[(32, 32), (64, 64), (128, 128)]),
    "vgg-wide": partial(_vgg, stages=[(64,), (128,), (256,)]),
    "compact": partial(_vgg, stages=[(16,), (32,), (64,)]),
    "resnet-small": partial(_residual, widths=_NARROW, counts=(1, 1, 1)),
    "resnet-medium": partial(_residual, widths=_NARROW, counts=(3, 3, 3)),
    "resnet-18": partial(_residual, widths=_WIDE, counts=(2, 2, 2, 2)),
    "resnet-34": partial(_residual, widths=_WIDE, counts=(3, 4, 6, 3)),
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
    """A surrogate network with new random weights.

    Args:
        name: "vgg-small" (3 convolutions of 32, 64 and 128 channels), "vgg-medium" (6), "vgg-wide"
            (3, twice as wide), "compact" (3, half as wide), "resnet-small" (ResNet-8),
            "resnet-medium" (ResNet-20), "resnet-18" and "resnet-34" (11 and 21 million weights, a
            3x3 stem, for a GPU) or "mlp".
        shape: (channels, height, width) of an image, sides of at least 8.
        classes: number of logits, at least 2.
        seed: of the initial weights; the global random state does not change.

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
        # Only the CPU generator: torch.manual_seed would reseed other devices as well.
        torch.default_generator.manual_seed(seed)
        return SURROGATES[name](shape, classes)


def head_of(model: nn.Module) -> str:
    """Name of the classifying layer: the last linear layer.

    Example:
        >>> head_of(build_surrogate("compact", (1, 8, 8), 10, seed=0))
        '13'
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return str(names[-1])


def load_body(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of an equal network into ``model``, without those of the classifying layer.

    The head keeps its weights, because the source may have other classes.

    Raises:
        InputError: a layer is missing, of another shape, or unknown to ``model``.
    """
    head = head_of(model) + "."
    own = model.state_dict()
    new = {k: v for k, v in weights.items() if not k.startswith(head)}
    expected = {k: v.shape for k, v in own.items() if not k.startswith(head)}
    if {k: v.shape for k, v in new.items()} != expected:
        wrong = sorted(
            k
            for k in expected.keys() | new.keys()
            if k not in new or expected.get(k) != new[k].shape
        )
        raise InputError(
            f"{source} does not fit the surrogate: {', '.join(wrong[:4])} are missing, unknown or "
            "of another shape. Use the weights of the same surrogate and image shape."
        )
    model.load_state_dict(own | new)


def load_initial(model: nn.Module, path: Path) -> None:
    """Load a safetensors file with :func:`load_body`.

    Raises:
        InputError: no such file, not safetensors, or the weights of another network.
    """
    if not path.is_file():
        raise InputError(f"initial weights {path} do not exist.")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as e:
        raise InputError(f"initial weights {path} cannot be read as safetensors: {e}") from e
    load_body(model, weights, f"file {path}")
