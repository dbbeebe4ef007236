"""Ask every image several times, slightly changed, and average the responses.

A defence that draws at random averages out, and one that poisons each image in another way partly
so; the price is fewer images for the same budget. Repeats alone would do against random draws, but
a victim may remember the images it was asked; changed ones it has never seen. Otherwise the attack
is KnockoffNets' random strategy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, check_bounds, substream, to_float
from divqat_brevitas.extraction.attacks.base import PoolAttack, Queries, ask
from divqat_brevitas.extraction.learners.base import TransferSet
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.augmentation import random_flip, random_shift


@dataclass(frozen=True)
class AveragedQueries(PoolAttack):
    """Random images of a pool, each asked in ``copies`` versions; the responses are averaged.

    The first version is the image itself. A budget of B asks B // copies images; what is left of
    it, fewer queries than one image needs, is not spent. The clone is trained on the images
    themselves.

    Args:
        learner: makes the clone.
        seed: of the choice and the changes, at least 0.
        copies: versions of an image, at least 1.
        shift: up to so many pixels in each direction, zeros moving in.
        flip: mirror half of the versions; for natural images only.
        noise: standard deviation of Gaussian noise on pixels in [0, 1].

    Raises:
        InputError: a number out of range.

    Example:
        >>> from torch import nn
        >>> from divqat_brevitas.extraction import PlainLearner
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> AveragedQueries(learner=learner).run(Victim(model, budget=50), pool).queries_used
        48
    """

    copies: int = 3
    shift: int = 1
    flip: bool = False
    noise: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(
            self,
            copies=self.copies >= 1,
            shift=self.shift >= 0,
            noise=0 <= self.noise <= 1,
        )

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "knockoff-averaged"

    def _queries(self, victim: Victim, images: NDArray[Any], budget: int) -> Queries:
        """Ask all versions of random images; indices name an image once a query."""
        count = min(budget // self.copies, len(images))
        if count < 2:
            raise InputError(
                f"a clone needs at least 2 answered images, but {budget} queries in {self.copies} "
                f"copies of {len(images)} images make {count}."
            )
        indices = self._random(images, count)
        responses = ask(victim, self._versions(to_float(images[indices])))
        averages = responses.reshape(count, self.copies, -1).mean(axis=1, dtype=np.float64)
        return Queries(
            TransferSet(images[indices], averages.astype(np.float32)),
            np.repeat(indices, self.copies),
            used=count * self.copies,
        )

    def _versions(self, images: Images) -> Images:
        """All versions, float32 (N · copies, C, H, W), those of an image in a row."""
        rng = substream(self.seed, "versions")
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        versions = [images]
        for _ in range(self.copies - 1):
            changed = random_shift(torch.from_numpy(images), self.shift, generator)
            if self.flip:
                changed = random_flip(changed, generator)
            noise = rng.standard_normal(images.shape, np.float32) * np.float32(self.noise)
            versions.append(np.clip(changed.numpy() + noise, 0, 1))
        return np.stack(versions, axis=1).reshape(-1, *images.shape[1:])
