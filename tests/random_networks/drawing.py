"""What all random networks draw alike: windows that fit a map, and images that are hard."""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """A sliding window; ``pads`` are top, left, bottom, right."""

    kernel: Pair
    strides: Pair
    pads: tuple[int, int, int, int]
    dilations: Pair

    def out(self, height: int, width: int, ceil: bool = False) -> Pair:
        """Rows and columns that come out; ``ceil``: also of a last window over the edge."""
        top, left, bottom, right = self.pads
        found = []
        for axis, (size, first, last) in enumerate(((height, top, bottom), (width, left, right))):
            stride = self.strides[axis]
            room = size + first + last - self.dilations[axis] * (self.kernel[axis] - 1) - 1
            count = room // stride + 1
            if ceil and room % stride and count * stride < size + first:
                count += 1
            found.append(count)
        return found[0], found[1]

    def fits(self, height: int, width: int) -> bool:
        top, left, bottom, right = self.pads
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        return spans[0] <= height + top + bottom and spans[1] <= width + left + right

    def __str__(self) -> str:
        text = f"{self.kernel[0]}x{self.kernel[1]}"
        for letter, value in (("s", self.strides), ("d", self.dilations)):
            text += f" {letter}{value[0]},{value[1]}" if value != (1, 1) else ""
        return text + (f" p{','.join(map(str, self.pads))}" if any(self.pads) else "")


def window(
    rng: random.Random,
    height: int,
    width: int,
    *,
    pool: bool = False,
    dilated: bool = True,
    even: bool = False,
) -> Geometry:
    """A window that fits a map; ``pool``: padded by less than its kernel; ``even``: as PyTorch."""
    while True:
        kernel = tuple(rng.choice((1, 1, 2, 2, 3, 3, 4)) for _ in "hw")
        strides = tuple(rng.choice((1, 1, 1, 2, 2, 3)) for _ in "hw")
        pads = [rng.choice((0, 0, 0, 1, 1, 2)) for _ in range(4)]
        if rng.random() < 0.5:
            pads = [0] * 4
        if even or rng.random() < 0.5:
            pads[2:] = pads[:2]
        spread = dilated and rng.random() < 0.2
        dilations = tuple(rng.choice((1, 2)) if spread else 1 for _ in "hw")
        if rng.random() < 0.12 and 1 < width <= 4:
            # One column comes out of a stride above 1: layouts in which libraries have been wrong.
            kernel, strides, pads[1], pads[3] = (kernel[0], width), (1, rng.choice((2, 3))), 0, 0
            dilations = (dilations[0], 1)
        if pool and max(pads) > min(kernel) // 2:
            continue
        found = Geometry(kernel, strides, tuple(pads), dilations)
        if found.fits(height, width):
            return found


def map_shape(rng: random.Random) -> tuple[int, int, int]:
    """Channels, height and width; one channel, one row and one column are frequent."""
    channels = rng.choice((1, 1, 2, 3, 3, 4))
    height, width = (rng.choice((1, 2, 3, 4, 5, 6, 7, 8)) for _ in "hw")
    return channels, height, width


def hard_images(shape: tuple[int, ...], scale: float, seed: int, random_ones: int = 5) -> Images:
    """All low, all high, single channels high or low, ends by chance, ties, random pixels.

    Args:
        shape: of an image, without batch.
        scale: of the first quantizer: odd multiples of its half are ties.
        seed: of what is random.
        random_ones: number of images of random pixels; as many are ends, and half as many ties.
    """
    rng = np.random.default_rng(seed)
    low, high = np.zeros(shape), np.ones(shape)
    parts = [low, high]
    for channel in rng.permutation(shape[0])[:2]:
        one = low.copy()
        one[channel] = 1
        parts += [one, high - one]
    parts += list(rng.random((random_ones, *shape)) < rng.random((random_ones, *[1] * len(shape))))
    steps = max(1, int(1 / scale))
    codes = rng.integers(0, steps + 1, (-(-random_ones // 2), *shape))
    parts += list(np.clip((codes + 0.5) * scale, 0, 1))
    parts += list(rng.integers(0, 256, (random_ones, *shape)) / 255)
    return np.stack(parts).astype(np.float32)
