"""Pools in pools: a little of one kind of image, scattered among another."""

import math
import re

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data.arrays import Pixels
from divqat_brevitas.errors import InputError

_MIX = re.compile(r"(?P<few>.+?):(?P<share>\d*\.\d+),(?P<rest>.+)")


def parse_mix(name: str) -> tuple[str, float, str]:
    """``mix:POOL:SHARE,POOL`` as the first pool, its share and the second pool.

    Raises:
        InputError: not of that form, a share outside 0 to 1, or twice the same pool.

    Example:
        >>> parse_mix("mix:in:0.05,dataset:cifar10:0,1")
        ('in', 0.05, 'dataset:cifar10:0,1')
    """
    match = _MIX.fullmatch(name.removeprefix("mix:"))
    if match is None or not 0 < float(match["share"]) < 1 or match["few"] == match["rest"]:
        raise InputError(
            f"the pool {name!r} is no mixture. Write mix:POOL:SHARE,POOL with two pools and a "
            "share between 0 and 1, such as mix:in:0.05,wallpapers."
        )
    return match["few"], float(match["share"]), match["rest"]


def places(count: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which of ``count`` images come from the pool that has ``share``: bool (count,).

    One at a random place in every 1/share images, so any beginning holds its share to one
    image, and a smaller count is the beginning of a larger one.
    """
    blocks = math.ceil(count * share) + 1
    edges = np.ceil(np.arange(blocks + 1) / share).astype(np.int64)
    chance = np.random.default_rng(seed).random(blocks)
    chosen = edges[:-1] + (chance * np.diff(edges)).astype(np.int64)
    mask = np.zeros(int(edges[-1]), dtype=np.bool_)
    mask[chosen] = True
    return mask[:count]


def scatter(mask: npt.NDArray[np.bool_], few: Pixels, rest: Pixels) -> Pixels:
    """``few`` where ``mask`` is true, ``rest`` elsewhere, each in its own order."""
    out = np.empty((len(mask), *(few if len(few) else rest).shape[1:]), dtype=np.uint8)
    out[mask], out[~mask] = few, rest
    return out
