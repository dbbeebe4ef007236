"""Defences by cost: "reverse-sigmoid@0.2" has the strength with a mean ℓ1 distance of 0.2.

At one strength a defence moves the responses of one network further than those of another. A fair
comparison of two networks therefore uses one cost. The cost is measured on the owner's validation
images, neither on the test set nor on an attacker's queries.
"""

from dataclasses import dataclass

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
from divqat_brevitas.extraction.defences.cost import (
    Cost,
    OutOfReachError,
    calibrate,
)


@dataclass(frozen=True)
class AtCost:
    """A defence with the strength that has a given cost.

    Attributes:
        spec: the defence with the strength in place of the cost, for :func:`make_defence`.
        strength: of the last part.
        target: the requested mean ℓ1 distance.
        cost: the reached cost on the validation images, against the responses before the last
            part.
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
