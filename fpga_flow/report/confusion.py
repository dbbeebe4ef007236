"""Confusion matrices of victims and clones.

An attack's file holds its clone's matrix. The results keep that of the worst case at the largest
budget, one for each victim and kind of query pool.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.extraction.evaluation.summary import (
    Group,
    attackers,
    defence_of,
    worst_case,
)
from fpga_flow.report.schema import AttackRow, Confusion

LARGEST = 20
"""Number of classes up to which a matrix is made; larger ones would not be read."""


def confusion(
    labels: npt.NDArray[Any], predictions: npt.NDArray[Any], classes: int
) -> list[list[int]] | None:
    """``counts[i][j]``: images of class i that were taken for class j; None for too many classes.

    ``labels`` and ``predictions`` are integers (N,) below ``classes``.

    Example:
        >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
        [[1, 0], [1, 1]]
    """
    if classes > LARGEST:
        return None
    counts = np.bincount(np.asarray(labels) * classes + predictions, minlength=classes * classes)
    rows: list[list[int]] = counts.reshape(classes, classes).tolist()
    return rows


def worst_case_confusions(rows: Sequence[AttackRow]) -> list[Confusion]:
    """Confusion rows of the worst-case clone of every victim and kind of query pool.

    At the largest budget and over all oracles, without a defence where it was attacked without
    one; of several seeds the first. None where the attack's file holds no matrix.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        places.setdefault((row.victim, row.pool_kind), []).append(defence_of(row))
    confusions: list[Confusion] = []
    for (victim, kind), defences in places.items():
        group = Group(victim, kind, 0, defence="none" if "none" in defences else defences[0])
        group = replace(group, budget=group.budgets(rows)[-1])
        own = group.of(rows)
        worst = worst_case(attackers(own))
        clones = [row for row in own if worst and attackers([row])[0].method == worst.method]
        first = min(clones, key=lambda row: (row.victim_seed, row.seed), default=None)
        counts = first.confusion if first else None
        if first is not None and worst is not None and counts is not None:
            behind = "" if group.defence == "none" else f" behind {group.defence}"
            confusions.append(
                Confusion(
                    kind="clone",
                    victim=victim,
                    seed=first.victim_seed,
                    what=f"{worst.name}{behind}, {group.budget:,} queries",
                    counts=counts,
                )
            )
    return confusions
