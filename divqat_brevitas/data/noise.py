"""Synthetic query images: smooth noise with random shapes; they need no data at all."""

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data.arrays import Pixels

_CHUNK = 256  # images made at once, each chunk from its own seed
_SHAPES = 3  # at most, per image


def noise(count: int, shape: tuple[int, int, int], seed: int) -> Pixels:
    """Value noise over several octaves, random contrast, up to three ellipses, boxes or bars.

    Args:
        count: number of images.
        shape: (C, H, W).
        seed: the same seed gives the same images.

    Returns:
        uint8 (count, C, H, W).
    """
    out = np.empty((count, *shape), dtype=np.uint8)
    for chunk, start in enumerate(range(0, count, _CHUNK)):
        # A whole chunk is always drawn, so that a shorter pool is the start of a longer one.
        rng = np.random.default_rng((seed, chunk))
        images = _draw_shapes(rng, _smooth(rng, shape))
        part = out[start : start + _CHUNK]
        part[:] = np.round(images[: len(part)] * 255)
    return out


def _smooth(rng: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Sum of random grids of 2, 4, 8, ... nodes a side, bilinearly enlarged; in [0, 1]."""
    channels, height, width = shape
    total = np.zeros((_CHUNK, channels, height, width))
    # Fine detail is weaker: amplitude falls by a random power of the frequency.
    slope = rng.uniform(0.5, 2.0, (_CHUNK, 1, 1, 1))
    nodes = 2
    while nodes <= max(height, width):
        grid = rng.normal(size=(_CHUNK, channels, nodes, nodes))
        # Channels of a natural image mostly agree.
        grid = 0.8 * grid.mean(axis=1, keepdims=True) + 0.6 * grid
        enlarged = _enlarge(height, nodes) @ grid @ _enlarge(width, nodes).T
        total += enlarged * (nodes / 2.0) ** -slope
        nodes *= 2
    low, high = (f(total, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    contrast = rng.uniform(0.2, 1.0, (_CHUNK, 1, 1, 1))
    floor = rng.uniform(0, 1, (_CHUNK, 1, 1, 1)) * (1 - contrast)
    return np.asarray(floor + contrast * (total - low) / (high - low))


def _enlarge(size: int, nodes: int) -> npt.NDArray[np.float64]:
    """The (size, nodes) matrix of linear interpolation."""
    at = np.linspace(0, nodes - 1, size)[:, None]
    weights: npt.NDArray[np.float64] = np.clip(1 - np.abs(at - np.arange(nodes)), 0, None)
    return weights


def _draw_shapes(
    rng: np.random.Generator, images: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    count, channels, height, width = images.shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    edge = max(height, width)
    for _ in range(_SHAPES):
        cx, cy = rng.uniform(0.1, 0.9, (2, count, 1, 1))
        a, b = rng.uniform(0.05, 0.4, (2, count, 1, 1))
        b = np.where(rng.random((count, 1, 1)) < 0.3, 0.05, b)  # bars
        angle = rng.uniform(0, np.pi, (count, 1, 1))
        u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / a
        v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / b
        round_ = rng.random((count, 1, 1)) < 0.5
        reach = np.where(round_, np.hypot(u, v), np.maximum(abs(u), abs(v)))
        # One pixel of soft edge, as a camera would see it.
        cover = np.clip((1 - reach) * np.minimum(a, b) * edge + 0.5, 0, 1)
        cover = cover * (rng.random((count, 1, 1)) < 0.5)
        colour = rng.uniform(0, 1, (count, channels, 1, 1))
        images = images + cover[:, None] * (colour - images)
    return images
