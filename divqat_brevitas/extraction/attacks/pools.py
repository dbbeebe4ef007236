"""What every attack on a pool checks before its first query."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import check_pool
from divqat_brevitas.extraction.attacks.base import ImagePool, allowance
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.networks import check_image_shape
from divqat_brevitas.short_repr import ShortRepr


@dataclass(frozen=True)
class Plan(ShortRepr):
    """What an attack has and may do.

    Attributes:
        images: of the pool, uint8 or float32 in [0, 1], (N, C, H, W).
        budget: queries it may spend.
        count: queries it will spend: the budget, or the pool's size if that is smaller.
    """

    images: NDArray[Any]
    budget: int
    count: int


def plan(victim: Victim, pool: ImagePool | NDArray[Any], budget: int | None) -> Plan:
    """Check a pool and a budget before anything is asked.

    Raises:
        BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
        InputError: a bad pool, or fewer than 2 queries to ask.

    Example:
        >>> from torch import nn
        >>> victim = Victim(nn.Flatten(), budget=5)
        >>> plan(victim, np.zeros((3, 1, 8, 8), np.uint8), None).count
        3
    """
    images = check_pool(pool if isinstance(pool, np.ndarray) else pool.images)
    check_image_shape(images.shape[1:])
    allowed = allowance(victim, budget)
    count = min(allowed, len(images))
    if count < 2:
        raise InputError(f"a clone needs at least 2 answered queries, but gets {count}.")
    return Plan(images, allowed, count)


def check_seed(seed: int, attack: str) -> None:
    """Refuse a negative seed.

    Raises:
        InputError: it is negative.
    """
    if seed < 0:
        raise InputError(f"{attack} needs a seed of at least 0, but got {seed}.")
