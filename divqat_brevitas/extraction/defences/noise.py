"""Gaussian noise on the probabilities, the randomised baseline of the perturbation defences.

    y' = max(y + n, 0) / sum(max(y + n, 0)),  n ~ N(0, scale²) for each class

as the post-processor ``GaussianNoise`` of the Adversarial Robustness Toolbox does it; a row that
loses all of its mass is NaN there and uniform here. Asked again, an image gets another response,
and averaging repeats undoes most of the noise: a response cache on the victim closes that door.
"""

from typing import Any

from divqat_brevitas.extraction.arrays import Images, Responses, substream
from divqat_brevitas.extraction.defences.base import check_range, distributions, spelled


class GaussianNoise:
    """Noise of standard deviation ``scale``, fresh for every response.

    Args:
        scale: in [0, 10]; 0 changes nothing.
        seed: of the noise. The noise of the n-th response depends only on the seed and n.

    Raises:
        InputError: ``scale`` out of range.

    Example:
        >>> import numpy as np
        >>> noise = GaussianNoise(0.1, seed=0)
        >>> p = np.float32([[0.5, 0.5]])
        >>> image = np.zeros((1, 1, 8, 8), np.float32)
        >>> bool((noise.perturb(image, p) == noise.perturb(image, p)).all())
        False
    """

    def __init__(self, scale: float = 0.2, seed: int = 0) -> None:
        self.scale = check_range("noise", "scale", scale, 0, 10)
        self.seed = seed
        self._rng = substream(seed, "noise")

    @property
    def name(self) -> str:
        """Such as "noise:0.2"."""
        return spelled("noise", self.scale)

    @property
    def settings(self) -> dict[str, Any]:
        """``scale`` and ``seed``."""
        return {"scale": self.scale, "seed": self.seed}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Noisy rows, float32 (N, classes), other ones each time."""
        noise = self._rng.standard_normal(probabilities.shape) * self.scale
        return distributions(probabilities + noise)
