"""The contract of a defence that perturbs the responses of a network, and several in a row."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from divqat_brevitas.errors import CheckedSettings, InputError
from divqat_brevitas.extraction.arrays import (
    Images,
    Labels,
    Responses,
    check_labels,
    check_pool,
    to_float,
)
from divqat_brevitas.extraction.oracles import Logits, Outputs, log_probabilities, softmax
from divqat_brevitas.extraction.predictor import Predictor, as_predictor
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


@dataclass(frozen=True)
class NumberedDefence(CheckedSettings, ABC):
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

    @property
    def _label(self) -> str:
        return f"defence {self.family!r}"

    @abstractmethod
    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """See :meth:`Defence.perturb`."""


@dataclass(frozen=True)
class Undefended(NumberedDefence):
    """No defence: the network's own responses."""

    family = "none"

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """A copy of the probabilities."""
        return probabilities.copy()


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


class Composition:
    """Defences in order: each perturbs the responses of the one before it.

    Args:
        parts: at least one.

    Raises:
        InputError: no part.

    Example:
        >>> from divqat_brevitas.extraction.defences import Rounding, TopK
        >>> both = Composition([TopK(2), Rounding(1)])
        >>> both.name
        'topk:2+rounding:1'
        >>> both.perturb(np.zeros((1, 1, 8, 8), np.float32), np.float32([[0.5, 0.3, 0.2]]))
        array([[0.6, 0.4, 0. ]], dtype=float32)
    """

    def __init__(self, parts: Sequence[Defence]) -> None:
        if not parts:
            raise InputError("a composition needs at least one defence.")
        self.parts = tuple(parts)

    @property
    def name(self) -> str:
        """The parts' names, joined by "+"."""
        return "+".join(part.name for part in self.parts)

    @property
    def settings(self) -> dict[str, Any]:
        """The parts, in order."""
        return {"parts": [{"name": part.name, **part.settings} for part in self.parts]}

    def perturb(self, images: Images, probabilities: Responses) -> Responses:
        """The last part's response, float32 (N, classes); every part's is checked."""
        for part in self.parts:
            probabilities = check_perturbed(
                part, probabilities, part.perturb(images, probabilities)
            )
        return probabilities


def defended_logits(defence: Defence, images: Images, logits: Logits) -> NDArray[np.float64]:
    """The defence's responses y' as log y', float64 (N, classes), see :func:`log_probabilities`.

    Raises:
        InputError: responses that are no distributions, see :func:`check_perturbed`.
    """
    probabilities = softmax(logits)
    # The defence gets arrays of its own: it must not change what the caller keeps.
    responses = check_perturbed(
        defence, probabilities, defence.perturb(images.copy(), probabilities.copy())
    )
    return log_probabilities(responses)


class DefendedPredictor:
    """A network behind a defence, as a predictor: to measure what the defence costs its owner.

    Args:
        predictor: a predictor or torch module.
        defence: a defence; a randomised one draws from its stream here too, so give this object
            one of its own.
        outputs: what the predictor returns, "logits" or "probabilities".

    Example:
        >>> from divqat_brevitas.extraction.defences import Top1
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> DefendedPredictor(model, Top1()).predict(np.zeros((2, 1, 8, 8), np.float32)).shape
        (2, 3)
    """

    def __init__(
        self, predictor: Predictor | nn.Module, defence: Defence, outputs: str = "logits"
    ) -> None:
        self._outputs = Outputs(as_predictor(predictor), outputs)
        self.defence = defence

    def predict(self, images: Images) -> Responses:
        """Logits whose softmax is the defended response, float32 (N, classes)."""
        logits = self._outputs.logits(images)
        if self.defence.name == "none":
            return logits.astype(np.float32, copy=False)
        return defended_logits(self.defence, images, logits).astype(np.float32)
