"""KnockoffNets with averaged responses to several slightly changed versions of every image.

Averages remove the noise of a randomised defence, and partly that of a defence that perturbs each
image differently. The price is fewer images for the same budget. Exact repeats would be enough
against random noise, but a victim may cache its responses; it does not recognise changed images.
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
    """Asks ``copies`` versions of random images of a pool and averages the responses.

    The first version is the image itself. A budget of B queries is enough for B // copies images;
    the remainder is not used. The clone is trained on the images themselves.

    Args:
        learner: trains the clone.
        seed: of the selection and the changes, at least 0.
        copies: number of versions of an image, at least 1.
        shift: largest shift in pixels, in each direction; zeros fill the border.
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
        """All versions, float32 (N · copies, C, H, W); those of one image are consecutive."""
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
