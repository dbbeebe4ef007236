"""Synthetic out-of-distribution images, made only from a batch of training images.

They stand for the queries of an attacker without in-distribution data: nine families, from torn-up
training images to procedural textures (dead leaves: Baradad et al., "Learning to See by Looking at
Noise", NeurIPS 2021). No image of any query pool is used, so that a defence trained on them is
tested on pools it has not seen.

A network that cannot tell torn-up training images from whole ones without losing accuracy is given
only the textures, and also photographs of no pool (``recoloured``).
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Maker = Callable[[Tensor, Generator], Tensor]


def synthetic_outliers(images: Tensor, generator: Generator, families: str = "all") -> Tensor:
    """As many outliers of some families as images, in mixed order.

    Args:
        images: (N, C, H, W) float in [0, 1], training images; sides of at least 8.
        generator: source of randomness, on the CPU.
        families: a key of ``KINDS``.

    Returns:
        (N, C, H, W) float in [0, 1].

    Example:
        >>> batch = torch.rand(16, 1, 8, 8)
        >>> synthetic_outliers(batch, torch.Generator().manual_seed(0)).shape
        torch.Size([16, 1, 8, 8])
    """
    order = torch.randperm(len(images), generator=generator)
    makers = [FAMILIES[name] for name in KINDS[families]]
    made = [
        recoloured(make(images[part.to(images.device)], generator), generator)
        for make, part in zip(makers, order.tensor_split(len(makers)), strict=True)
        if len(part)
    ]
    return torch.cat(made).clamp(0, 1)


def _jigsaw(x: Tensor, g: Generator) -> Tensor:
    """Tiles of each image, 2x2 to 4x4, shuffled."""
    return _shuffle_tiles(x, _whole(2, 5, g), g)


def _mixture(x: Tensor, g: Generator) -> Tensor:
    """Two images over one another, one upside down."""
    share = _uniform((len(x), 1, 1, 1), g, 0.4, 0.6).to(x)
    return share * x + (1 - share) * x[_order(len(x), g)].flip(2)


def _close_up(x: Tensor, g: Generator) -> Tensor:
    """A small crop enlarged to the whole: texture without shape."""
    _, _, height, width = x.shape
    side = _whole(max(2, height // 5), height // 2, g)
    top, left = _whole(0, height - side + 1, g), _whole(0, width - side + 1, g)
    crop = x[:, :, top : top + side, left : left + side]
    return F.interpolate(crop, (height, width), mode="bilinear")


def _smooth_noise(x: Tensor, g: Generator) -> Tensor:
    """Noise over five octaves, at random slope and contrast."""
    n, channels, height, width = x.shape
    total = torch.zeros(n, channels, height, width)
    slope = _uniform((n, 1, 1, 1), g, 0.3, 1.8)
    for nodes in (2, 4, 7, 14, 28):
        # Channels of a natural image mostly agree.
        grid = 0.8 * torch.randn(n, 1, nodes, nodes, generator=g)
        grid = grid + 0.6 * torch.randn(n, channels, nodes, nodes, generator=g)
        total += _resize(grid, height, width) * (nodes / 2.0) ** -slope
    contrast = _uniform((n, 1, 1, 1), g, 0.2, 1.0)
    floor = _uniform((n, 1, 1, 1), g, 0.0, 1.0) * (1 - contrast)
    return (floor + contrast * _stretched(total)).to(x)


def _dead_leaves(x: Tensor, g: Generator, leaves: int = 12) -> Tensor:
    """Discs and boxes of random size and colour, each covering those before."""
    n, channels, height, width = x.shape
    out = torch.rand(n, channels, 1, 1, generator=g).expand(x.shape).clone()
    ys, xs = _grid(height, width)
    for _ in range(leaves):
        cx, cy = _uniform((2, n, 1, 1), g, -0.1, 1.1)
        radius = 0.05 + 0.4 * _uniform((n, 1, 1), g) ** 2
        angle, squeeze = _uniform((n, 1, 1), g, 0, math.pi), _uniform((n, 1, 1), g, 0.3, 1.0)
        u = (xs - cx) * angle.cos() + (ys - cy) * angle.sin()
        v = ((ys - cy) * angle.cos() - (xs - cx) * angle.sin()) / squeeze
        box = _chance((n, 1, 1), g, 0.5)
        inside = torch.where(box, torch.maximum(u.abs(), v.abs()), torch.hypot(u, v)) < radius
        colour = torch.rand(n, channels, 1, 1, generator=g)
        grey = colour.mean(1, keepdim=True).expand_as(colour)
        colour = torch.where(_chance((n, 1, 1, 1), g, 0.4), grey, colour)
        out = torch.where(inside[:, None], colour, out)
    return out.to(x)


def _strokes(x: Tensor, g: Generator, strokes: int = 5) -> Tensor:
    """A few straight or bent strokes of one width on a plain ground, as in drawings and signs."""
    n, channels, height, width = x.shape
    ys, xs = _grid(height, width)
    thickness = _uniform((n, 1, 1), g, 0.02, 0.09)
    distance = torch.full((n, height, width), 9.0)
    for stroke in range(strokes):
        (ax, ay, bx, by) = _uniform((4, n, 1, 1), g, 0.12, 0.88)
        bend = 0.25 * torch.randn(n, 1, 1, generator=g) * _chance((n, 1, 1), g, 0.5)
        along = ((xs - ax) * (bx - ax) + (ys - ay) * (by - ay)) / (
            (bx - ax) ** 2 + (by - ay) ** 2 + 1e-6
        )
        t = along.clamp(0, 1)
        bulge = 4 * bend * t * (1 - t)
        dx = xs - ax - t * (bx - ax) + bulge * (by - ay)
        dy = ys - ay - t * (by - ay) - bulge * (bx - ax)
        drawn = _chance((n, 1, 1), g, 1.0 if stroke < 2 else 0.5)
        distance = torch.where(drawn, torch.minimum(distance, torch.hypot(dx, dy)), distance)
    cover = ((thickness - distance) * max(height, width) + 0.5).clamp(0, 1)[:, None]
    ground = torch.rand(n, channels, 1, 1, generator=g) * _chance((n, 1, 1, 1), g, 0.4)
    ink = 1 - torch.rand(n, channels, 1, 1, generator=g) * _chance((n, 1, 1, 1), g, 0.4)
    return (ground + cover * (ink - ground)).to(x)


def _scrambled_phase(x: Tensor, g: Generator) -> Tensor:
    """The image's own spectrum with random phases: its statistics without its content."""
    spectrum = torch.fft.rfft2(x)
    phase = _uniform((len(x), 1, *spectrum.shape[2:]), g, 0, 2 * math.pi).to(x)
    return _stretched(torch.fft.irfft2(spectrum.abs() * torch.exp(1j * phase), s=x.shape[2:]))


def _collage(x: Tensor, g: Generator) -> Tensor:
    """Four quarters of four images, each shrunk or cut out, turned together."""
    _, _, height, width = x.shape
    half, wide = (height + 1) // 2, (width + 1) // 2
    quarters = []
    for _ in range(4):
        other = x[_order(len(x), g)]
        if _whole(0, 2, g):
            quarters.append(F.interpolate(other, (half, wide), mode="area"))
        else:
            top, left = height // 4, width // 4
            quarters.append(other[:, :, top : top + half, left : left + wide])
    rows = [torch.cat(quarters[:2], 3), torch.cat(quarters[2:], 3)]
    return _turned(torch.cat(rows, 2)[:, :, :height, :width], _whole(0, 4, g))


def _fragments(x: Tensor, g: Generator) -> Tensor:
    """Pieces of a torn image over dead leaves or noise, along a smooth edge."""
    ground = _dead_leaves(x, g, leaves=5) if _whole(0, 2, g) else _smooth_noise(x, g)
    mask = (_smooth_noise(x[:, :1], g) > 0.5).to(x)
    return _shuffle_tiles(x, 2, g) * mask + ground * (1 - mask)


FAMILIES: dict[str, Maker] = {
    "jigsaw": _jigsaw,
    "mixture": _mixture,
    "close-up": _close_up,
    "smooth-noise": _smooth_noise,
    "dead-leaves": _dead_leaves,
    "strokes": _strokes,
    "scrambled-phase": _scrambled_phase,
    "collage": _collage,
    "fragments": _fragments,
}
"""Families of outliers: images (N, C, H, W) in, as many outliers out."""
KINDS: dict[str, tuple[str, ...]] = {
    "all": tuple(FAMILIES),
    "textures": ("smooth-noise", "dead-leaves", "strokes", "scrambled-phase"),
}
"""Families by what they hold: all, or those without a piece of a training image."""


def recoloured(x: Tensor, g: Generator) -> Tensor:
    """Outliers (N, C, H, W) inverted, in other colours, turned, or (half of the time) as they are.

    All of a call in one way.
    """
    match _whole(0, 6, g):
        case 0:
            return 1 - x
        case 1:
            gain, lift = (_uniform((len(x), 1, 1, 1), g).to(x) for _ in range(2))
            return (x * (gain + 0.3) + lift * 0.5).clamp(0, 1)
        case 2:
            return x[:, torch.randperm(x.shape[1], generator=g)]
        case 3:
            return _turned(x, _whole(1, 4, g))
        case _:
            return x


def _shuffle_tiles(x: Tensor, tiles: int, g: Generator) -> Tensor:
    n, channels, height, width = x.shape
    h, w = height // tiles, width // tiles
    cut = x[:, :, : h * tiles, : w * tiles].reshape(n, channels, tiles, h, tiles, w)
    cut = cut.permute(0, 2, 4, 1, 3, 5).reshape(n, tiles * tiles, channels, h, w)
    index = torch.rand(n, tiles * tiles, generator=g).argsort(1).to(x.device)
    cut = cut[torch.arange(n, device=x.device)[:, None], index]
    cut = cut.reshape(n, tiles, tiles, channels, h, w).permute(0, 3, 1, 4, 2, 5)
    whole = cut.reshape(n, channels, h * tiles, w * tiles)
    # Sides that the tiles do not divide are filled by repeating pixels.
    return whole if whole.shape == x.shape else F.interpolate(whole, (height, width))


def _turned(x: Tensor, quarters: int) -> Tensor:
    """Turned by quarters of a circle; only by half of one where sides differ."""
    square = x.shape[2] == x.shape[3]
    turned: Tensor = torch.rot90(x, quarters if square else 2 * (quarters // 2), (2, 3))
    return turned


def _stretched(x: Tensor) -> Tensor:
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low + 1e-6)


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels from 0 to 1, each (height, width)."""
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    ys, xs = torch.meshgrid(rows, columns, indexing="ij")
    return ys, xs


def _order(count: int, g: Generator) -> Tensor:
    return torch.randint(0, count, (count,), generator=g)


def _whole(low: int, high: int, g: Generator) -> int:
    """A whole number of [low, high)."""
    return int(torch.randint(low, max(low + 1, high), (1,), generator=g))


def _uniform(shape: tuple[int, ...], g: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=g)


def _chance(shape: tuple[int, ...], g: Generator, probability: float) -> Tensor:
    return torch.rand(shape, generator=g) < probability
