"""Ask every image several times, slightly changed, and average the responses.

A defence that draws at random averages out, and one that poisons each image in another way partly
so; the price is fewer images for the same budget. Repeats alone would do against random draws, but
a victim may remember the images it was asked; changed ones it has never seen. Otherwise the attack
is KnockoffNets' random strategy.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, check_pool, substream, to_float
from divqat_brevitas.extraction.attacks.base import (
    ImagePool,
    Result,
    allowance,
    ask,
    deliver,
    met,
)
from divqat_brevitas.extraction.learners.base import Learner, PlainLearner, TransferSet
from divqat_brevitas.extraction.query.victim import Victim
from divqat_brevitas.extraction.surrogates.augmentation import random_flip, random_shift
from divqat_brevitas.extraction.surrogates.networks import check_image_shape
from divqat_brevitas.extraction.surrogates.training import Epoch


@dataclass(frozen=True, kw_only=True)
class AveragedQueries:
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
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> pool = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
        >>> learner = PlainLearner(surrogate="mlp", epochs=1)
        >>> AveragedQueries(learner=learner).run(Victim(model, budget=50), pool).queries_used
        48
    """

    learner: Learner = field(default_factory=PlainLearner)
    seed: int = 0
    copies: int = 3
    shift: int = 1
    flip: bool = False
    noise: float = 0.02

    def __post_init__(self) -> None:
        bounds = {
            "seed": self.seed >= 0,
            "copies": self.copies >= 1,
            "shift": self.shift >= 0,
            "noise": 0 <= self.noise <= 1,
        }
        for name, fine in bounds.items():
            if not fine:
                raise InputError(
                    f"averaged queries: {name}={getattr(self, name)!r} is out of range; "
                    "see AveragedQueries."
                )

    @property
    def name(self) -> str:
        """The attack's name in results."""
        return "knockoff-averaged"

    def run(
        self,
        victim: Victim,
        pool: ImagePool | NDArray[Any],
        budget: int | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> Result:
        """Ask the victim and train a clone on the averages.

        Args:
            victim: responses; its budget is what limits the attack.
            pool: the attacker's images, uint8 or float32 in [0, 1], NCHW, at least 2.
            budget: queries to spend; None spends what the victim has left.
            on_epoch: called with each row of the history as it is made.

        Returns:
            Its indices name each image once a query: ``copies`` times in a row.

        Raises:
            BudgetExceededError: the victim has fewer queries left than ``budget``, or none.
            InputError: a bad pool, or a budget for fewer than two images.
        """
        images = check_pool(pool if isinstance(pool, np.ndarray) else pool.images)
        check_image_shape(images.shape[1:])
        budget = allowance(victim, budget)
        count = min(budget // self.copies, len(images))
        if count < 2:
            raise InputError(
                f"a clone needs at least 2 answered images, but {budget} queries in {self.copies} "
                f"copies of {len(images)} images make {count}."
            )
        indices = substream(self.seed, "pool").permutation(len(images))[:count]
        chosen = images[indices]
        responses = ask(victim, self._versions(to_float(chosen)))
        averages = responses.reshape(count, self.copies, -1).mean(axis=1, dtype=np.float64)
        settings: dict[str, Any] = {"attack": self.name, "seed": self.seed, "copies": self.copies}
        settings |= {"shift": self.shift, "flip": self.flip, "noise": self.noise}
        settings |= met(victim, budget) | {"pool_images": len(images)}
        return deliver(
            self.learner,
            TransferSet(chosen, averages.astype(np.float32)),
            seed=self.seed,
            queries_used=count * self.copies,
            settings=settings,
            indices=np.repeat(indices, self.copies),
            on_epoch=on_epoch,
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
