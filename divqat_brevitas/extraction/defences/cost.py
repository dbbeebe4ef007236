"""The cost of a defence, and the strength that has a given cost: "reverse-sigmoid@0.2".

At one strength a defence moves the responses of one network further than those of another. A fair
comparison of two networks therefore uses one cost, a mean ℓ1 distance of responses. It is measured
on the owner's validation images, neither on the test set nor on an attacker's queries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.defences.base import Defence, check_perturbed
from divqat_brevitas.extraction.defences.catalogue import (
    FAMILIES,
    DefenceMaterial,
    family,
    make_defence,
    split_target,
)

STEPS = 40


@dataclass(frozen=True)
class Cost:
    """The distance of defended responses from the undefended ones.

    Attributes:
        l1: mean ℓ1 distance of a row, in [0, 2].
        labels_changed: fraction of rows with another label (lowest index on a tie).
    """

    l1: float
    labels_changed: float


@dataclass(frozen=True)
class Calibration:
    """The result of :func:`calibrate`.

    Attributes:
        strength: the argument of ``make``.
        cost: of that defence on the validation images.
    """

    strength: float
    cost: Cost


class OutOfReachError(InputError):
    """No strength has the cost that :func:`calibrate` was asked for.

    Attributes:
        nearest: the strength to fall back on: the strongest where the family is too weak, the
            weakest where it is too strong, and where the cost jumps the last one before the jump.
    """

    def __init__(self, message: str, nearest: Calibration) -> None:
        super().__init__(message)
        self.nearest = nearest


def cost(probabilities: Responses, defended: Responses) -> Cost:
    """The cost of defended responses.

    Raises:
        InputError: different shapes, or no row.

    Example:
        >>> cost(np.float32([[0.75, 0.25]]), np.float32([[0.25, 0.75]]))
        Cost(l1=1.0, labels_changed=1.0)
    """
    if probabilities.ndim != 2 or probabilities.shape != defended.shape or not len(defended):
        raise InputError(
            f"responses of shape {defended.shape} cannot be compared with the undefended ones of "
            f"shape {probabilities.shape}; both must come from the same images."
        )
    distance = np.abs(defended.astype(np.float64) - probabilities).sum(axis=1)
    changed = defended.argmax(axis=1) != probabilities.argmax(axis=1)
    return Cost(float(distance.mean()), float(changed.mean()))


def cost_of(defence: Defence, images: Images, probabilities: Responses) -> Cost:
    """The cost of a defence on images and their undefended responses.

    Raises:
        InputError: see :func:`cost` and :func:`check_perturbed`.
    """
    responses = check_perturbed(
        defence, probabilities, defence.perturb(images.copy(), probabilities.copy())
    )
    return cost(probabilities, responses)


def calibrate(
    make: Callable[[float], Defence],
    probabilities: Responses,
    images: Images,
    l1: float = 0.2,
    *,
    between: tuple[float, float] = (0.0, 1.0),
    tolerance: float = 0.02,
) -> Calibration:
    """The strength at which a family's mean ℓ1 distance to the undefended responses is ``l1``.

    Defences are compared at equal cost. The images are the owner's validation images, neither the
    attacker's nor the test set. The search is a bisection; each step makes a new defence, so a
    randomised one draws the same noise at each strength.

    Args:
        make: makes a defence from its strength, see :func:`family`.
        probabilities: the network's undefended responses to ``images``, float32 (N, classes).
        images: float32 NCHW in [0, 1].
        l1: the target, in (0, 2].
        between: weakest and strongest strength; the cost should grow from one to the other.
        tolerance: of the mean distance, as a fraction of the target.

    Raises:
        OutOfReachError: the target lies outside what the family reaches, or where its cost jumps.
        InputError: a target or strengths out of range.

    Example:
        >>> from divqat_brevitas.extraction.defences import ReverseSigmoid
        >>> p = np.float32([[0.9, 0.05, 0.05]])
        >>> image = np.zeros((1, 1, 8, 8), np.float32)
        >>> round(calibrate(ReverseSigmoid, p, image, 0.2).cost.l1, 2)
        0.2
    """
    low, high = between
    if not 0 < l1 <= 2 or not low < high:
        raise InputError(
            f"calibration needs a target in (0, 2] and low < high, not {l1}, {between}."
        )

    def measure(strength: float) -> Cost:
        return cost_of(make(strength), images, probabilities)

    least, most = measure(low), measure(high)
    for strength, reached in ((low, least), (high, most)):
        if abs(reached.l1 - l1) <= tolerance * l1:
            return Calibration(strength, reached)
    if not least.l1 < l1 < most.l1:
        raise OutOfReachError(
            f"a mean ℓ1 distance of {l1:g} is out of reach: defence {make(high).name!r} has "
            f"{most.l1:.4g}, and {make(low).name!r} {least.l1:.4g}.",
            Calibration(high, most) if most.l1 <= l1 else Calibration(low, least),
        )
    for _ in range(STEPS):
        middle = (low + high) / 2
        reached = measure(middle)
        if abs(reached.l1 - l1) <= tolerance * l1:
            return Calibration(middle, reached)
        low, high = (middle, high) if reached.l1 < l1 else (low, middle)
    before = measure(low)
    raise OutOfReachError(
        f"no strength has a mean ℓ1 distance of {l1:g}: at {make(low).name!r} it is "
        f"{before.l1:.4g} and at the next stronger one {measure(high).l1:.4g}. Use more "
        "validation images or another target.",
        Calibration(low, before),
    )


@dataclass(frozen=True)
class AtCost:
    """A defence with the strength that has a given cost.

    Attributes:
        spec: the defence with the strength in place of the cost, for :func:`make_defence`.
        strength: of the last part.
        target: the requested mean ℓ1 distance.
        cost: the reached cost on the validation images, against the responses before the last part.
        shortfall: why the target was missed and what is used instead; "" where it was met.
    """

    spec: str
    strength: float
    target: float
    cost: Cost
    shortfall: str = ""


def at_cost(
    spec: str,
    probabilities: Responses,
    images: Images,
    material: DefenceMaterial | None = None,
    seed: int = 0,
) -> AtCost:
    """Find the strength at which the last part of ``spec`` has the cost that it names.

    The parts before it are applied first: the "dcp" of "gate:0:0.05+dcp@0.2" moves the responses
    of the label-only fallback by 0.2. A family that cannot reach the target is used at its
    strongest, and ``shortfall`` explains it.

    Args:
        spec: a defence with a cost behind its last part, see :func:`split_target`.
        probabilities: the network's undefended responses, float32 (N, classes).
        images: the owner's validation images of these responses, float32 (N, C, H, W) in [0, 1].
        material: for families that need networks or data.
        seed: the seed that the defence is made with later.

    Raises:
        InputError: a spec without a cost or with a bad one, or missing material.

    Example:
        >>> import numpy as np
        >>> p = np.float32([[0.9, 0.05, 0.05]])
        >>> calibration = at_cost("reverse-sigmoid@0.2", p, np.zeros((1, 1, 8, 8), np.float32))
        >>> calibration.spec, round(calibration.cost.l1, 2), calibration.shortfall
        ('reverse-sigmoid:0.390625', 0.2, '')
    """
    plain, target = split_target(spec)
    if target is None:
        raise InputError(f"defence {spec!r} names no cost, such as 'reverse-sigmoid@0.2' does.")
    head, _, name = plain.rpartition("+")
    strengths = FAMILIES[name].strengths
    assert strengths is not None, "split_target lets no other family through"
    before = probabilities
    if head:
        first = make_defence(head, material, seed)
        before = check_perturbed(first, before, first.perturb(images.copy(), probabilities.copy()))
    of_strength = family(name, material, seed)

    def make(strength: float) -> Defence:
        return of_strength(_written(strength))

    shortfall = ""
    try:
        calibration = calibrate(make, before, images, target, between=strengths)
    except OutOfReachError as e:
        calibration = e.nearest
        nearest = make(calibration.strength).name
        shortfall = f"{e} Used instead: {nearest!r}, with {calibration.cost.l1:.4g}."
    strength = _written(calibration.strength)
    full_spec = "+".join([*([head] if head else []), f"{name}:{strength:.6g}"])
    return AtCost(full_spec, strength, target, calibration.cost, shortfall)


def _written(strength: float) -> float:
    """Round to the digits of a spec, so that the cost is that of the spec."""
    return float(f"{strength:.6g}")
