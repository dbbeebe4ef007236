"""Perturbations by a formula: Gaussian noise, Reverse Sigmoid, and DCP.

Gaussian noise is the randomised baseline, as the post-processor ``GaussianNoise`` of the
Adversarial Robustness Toolbox does it; a row that loses all mass is NaN there and uniform here::

    y' = max(y + n, 0) / sum(max(y + n, 0)),  n ~ N(0, scale²) for each class

Asked again, an image gets another response, and averaging repeats undoes most of the noise: a
response cache on the victim closes that door.

Reverse Sigmoid (Lee, Edwards, Molloy and Su, "Defending Against Neural Network Model Stealing
Attacks Using Deceptive Perturbations", IEEE S&P Workshops 2019, eq. 3 and 4)::

    r(y) = β (σ(γ σ⁻¹(y)) - 1/2),   y' = (y - r(y)) / sum(y - r(y))

with σ the sigmoid. Negative y - r(y) become 0 before the sum, and σ⁻¹ is taken of y clipped to
[1e-9, 1 - 1e-9]: both as in the Adversarial Robustness Toolbox, without them the formula gives
negative "probabilities" and infinities. Two public copies clip the odds y / (1 - y) at 1 instead,
which makes r = 0 wherever y > 1/2: the top class of a confident response is then not perturbed.

DCP (Khaled, Dhaouadi, Nicolescu and Mosterman, "Efficient Defense Against Model Stealing Attacks
on Convolutional Neural Networks", ICMLA 2023, arXiv 2309.01838; formula after the authors'
published code, which has the clipped odds above) perturbs unsure responses only::

    a = 1 / (1 + exp(1000 (max y - β))),   y' = normalise(y - a r(y))

β is the threshold and the magnitude at once.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from divqat_brevitas.errors import Within
from divqat_brevitas.extraction.arrays import Images, Responses, substream
from divqat_brevitas.extraction.defences.base import (
    NumberedDefence,
    check_range,
    distributions,
    spelled,
)


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


CLIP = 1e-9
NU = 1000.0
"""Slope of the switch, in DCP and in Adaptive Misinformation."""


def reverse_sigmoid(probabilities: Responses, beta: float, gamma: float) -> NDArray[np.float64]:
    """The perturbation r(y) that is subtracted, float64 (N, classes).

    Example:
        >>> reverse_sigmoid(np.float32([[0.5, 0.5]]), 1.0, 0.2)
        array([[0., 0.]])
    """
    y = np.clip(probabilities.astype(np.float64), CLIP, 1 - CLIP)
    # σ(γ σ⁻¹(y)) - 1/2 = tanh(γ σ⁻¹(y) / 2) / 2, which is exact at 0.
    r: NDArray[np.float64] = beta * np.tanh(gamma * np.log(y / (1 - y)) / 2) / 2
    return r


def unsure(probabilities: Responses, threshold: float) -> NDArray[np.float64]:
    """The switch 1 / (1 + exp(1000 (max y - threshold))), float64 (N, 1): 1 below the threshold."""
    top = probabilities.max(axis=1, keepdims=True).astype(np.float64)
    # The same function as tanh, which does not overflow.
    switch: NDArray[np.float64] = (1 - np.tanh(NU * (top - threshold) / 2)) / 2
    return switch


@dataclass(frozen=True)
class _BetaGamma(NumberedDefence):
    """The parameters of both; γ is left out of the name where it is 0.2."""

    beta: Annotated[float, Within(0, 100)] = 0.5
    gamma: Annotated[float, Within(0, 10)] = 0.2

    @property
    def name(self) -> str:
        """Such as "dcp:0.7" or "dcp:0.7:0.1"."""
        return spelled(self.family, self.beta, *([] if self.gamma == 0.2 else [self.gamma]))


@dataclass(frozen=True)
class ReverseSigmoid(_BetaGamma):
    """The defence of Lee et al. 2019.

    Args:
        beta: magnitude, in [0, 100]; 0 changes nothing.
        gamma: convergence parameter, in [0, 10]; the smaller, the closer r is to linear in
            σ⁻¹(y), and the weaker.

    Raises:
        InputError: a parameter out of range.

    Example:
        >>> p = np.float32([[0.9, 0.05, 0.03, 0.02]])
        >>> ReverseSigmoid(0.3, 0.2).perturb(np.zeros((1, 1, 8, 8), np.float32), p).round(4)
        array([[0.7772, 0.0833, 0.0718, 0.0677]], dtype=float32)
    """

    family = "reverse-sigmoid"

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Perturbed rows, float32 (N, classes)."""
        return distributions(probabilities - reverse_sigmoid(probabilities, self.beta, self.gamma))


@dataclass(frozen=True)
class DCP(_BetaGamma):
    """The defence of Khaled et al. 2023: Reverse Sigmoid on unsure responses.

    Args:
        beta: threshold and magnitude, in [0, 100]; above 1 every response is perturbed.
        gamma: as in :class:`ReverseSigmoid`; the authors use 0.1 for CIFAR-100, else 0.2.

    Raises:
        InputError: a parameter out of range.

    Example:
        >>> p = np.float32([[0.9, 0.1], [0.6, 0.4]])
        >>> DCP(0.7).perturb(np.zeros((2, 1, 8, 8), np.float32), p).round(3)
        array([[0.9  , 0.1  ],
               [0.586, 0.414]], dtype=float32)
    """

    family = "dcp"
    beta: Annotated[float, Within(0, 100)] = 0.7

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Perturbed rows, float32 (N, classes); sure responses come through as they are."""
        r = reverse_sigmoid(probabilities, self.beta, self.gamma)
        return distributions(probabilities - unsure(probabilities, self.beta) * r)
