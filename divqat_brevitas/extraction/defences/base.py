"""The contract of a defence that perturbs the responses of a network."""

from abc import ABC, abstractmethod
from dataclasses import asdict, astuple, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import (
    Images,
    Labels,
    Responses,
    check_labels,
    check_pool,
    to_float,
)
from divqat_brevitas.extraction.surrogates.networks import build_surrogate


class Defence(Protocol):
    """Perturbs probabilities before the oracle shows them; the label may change too.

    A randomised defence draws from its own stream: the same query gives two responses, and a
    whole run is repeatable. Such an object belongs to one victim.
    """

    @property
    def name(self) -> str:
        """The name in results, with the strength: "reverse-sigmoid:0.5"."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Its parameters, as values that JSON can hold."""
        ...

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """Perturbed probabilities of the queried images, float32 (N, classes), rows of sum 1."""
        ...


class Undefended:
    """No defence: the network's own responses."""

    name = "none"

    @property
    def settings(self) -> dict[str, Any]:
        """Empty: there are no parameters."""
        return {}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """A copy of the probabilities."""
        return probabilities.copy()


@dataclass(frozen=True)
class NumberedDefence(ABC):
    """A defence that its family and its numbers, the dataclass fields, define."""

    family: ClassVar[str]

    @property
    def name(self) -> str:
        """Family and numbers, such as "topk:3"."""
        return spelled(self.family, *astuple(self))

    @property
    def settings(self) -> dict[str, Any]:
        """The numbers by name."""
        return asdict(self)

    @abstractmethod
    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """See :meth:`Defence.perturb`."""


def spelled(family: str, *numbers: float) -> str:
    """A defence's name, "family:number:...", each number in its shortest form.

    Example:
        >>> spelled("reverse-sigmoid", 0.5, 0.2)
        'reverse-sigmoid:0.5:0.2'
    """
    texts = (str(number) if isinstance(number, int) else f"{number:.6g}" for number in numbers)
    return ":".join([family, *texts])


def distributions(rows: NDArray[np.float64]) -> Responses:
    """Rows of any finite numbers as probabilities, float32: negatives become 0, sums become 1.

    A row without mass becomes uniform.

    Example:
        >>> distributions(np.array([[0.3, -0.1, 0.1], [0.0, 0.0, 0.0]]))
        array([[0.75      , 0.        , 0.25      ],
               [0.33333334, 0.33333334, 0.33333334]], dtype=float32)
    """
    clipped = np.maximum(rows, 0)
    sums = clipped.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        normalised = np.where(sums > 0, clipped / sums, 1 / rows.shape[1])
    responses: Responses = normalised.astype(np.float32)
    return responses


def check_perturbed(defence: Defence, before: Responses, after: object) -> Responses:
    """Return ``after`` as float32 if it holds a distribution for each row of ``before``.

    The oracle's softmax would rescale a row that is no distribution, and the attacker would get
    another response than the one whose cost was measured.

    Raises:
        InputError: another shape, NaN or infinity, a negative entry, or a sum that is not 1 up to
            the rounding of float32 (4 units in the last place a class).
    """
    rows = np.asarray(after)
    what = f"the responses of defence {defence.name!r}"
    if rows.shape != before.shape or not np.issubdtype(rows.dtype, np.floating):
        raise InputError(
            f"{what} must be floating-point of shape {before.shape}, "
            f"but are {rows.dtype} of shape {rows.shape}."
        )
    if not np.isfinite(rows).all() or rows.min(initial=0) < 0:
        raise InputError(f"{what} must be finite and not negative. Clip them, see distributions().")
    error = np.abs(rows.sum(axis=1, dtype=np.float64) - 1).max(initial=0)
    if error > 4 * rows.shape[1] * np.finfo(np.float32).eps:
        raise InputError(
            f"{what} must be rows of sum 1, but one is off by {error:.3g}. "
            "Normalise them, see distributions()."
        )
    return rows.astype(np.float32, copy=False)


def check_range(family: str, what: str, value: float, low: float, high: float) -> float:
    """``value`` as a float within [low, high].

    Raises:
        InputError: outside, NaN, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(
            f"{what} of defence {family!r} must be a number from {low:g} to {high:g}, "
            f"but is {value!r}."
        )
    return float(value)


def untrained(
    images: NDArray[Any],
    labels: NDArray[Any],
    classes: int | None,
    network: str,
    seed: int,
    whose: str,
) -> tuple[nn.Module, Images, Labels, int]:
    """A new network for the owner's training data, with checked images, labels and classes.

    Raises:
        InputError: bad images or labels, or an unknown network.
    """
    pixels = check_pool(images, f"{whose} training images")
    targets = check_labels(labels, len(pixels), f"{whose} training labels")
    count = int(targets.max()) + 1 if classes is None else classes
    if targets.max() >= count:
        raise InputError(f"label {targets.max()} does not fit {count} classes.")
    _, channels, height, width = pixels.shape
    model = build_surrogate(network, (channels, height, width), count, seed)
    return model, to_float(pixels), targets, count
