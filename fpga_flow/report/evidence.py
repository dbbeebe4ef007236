"""Confusion of victims and clones: counted where they are asked, the best clones' kept.

An attack's file holds its clone's confusion. Of a run's thousands the results keep one a victim
and kind of queries: the clone with the highest accuracy at the largest budget.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST = 20
"""Classes; of data sets with more a table would not be read."""
_KEY = "confusion"


def confusion(
    labels: npt.NDArray[Any], answered: npt.NDArray[Any], classes: int
) -> list[list[int]] | None:
    """``counts[i][j]``: images of class i answered with class j; None for too many classes.

    Args:
        labels: integers (N,), below ``classes``.
        answered: likewise.
        classes: of the data set.

    Example:
        >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
        [[1, 0], [1, 1]]
    """
    if classes > LARGEST:
        return None
    counts = np.bincount(np.asarray(labels) * classes + answered, minlength=classes * classes)
    rows: list[list[int]] = counts.reshape(classes, classes).tolist()
    return rows


def best_clones(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Confusion rows of the best clone of every victim and kind of queries."""
    best: dict[tuple[Any, Any], Mapping[str, Any]] = {}
    for row in rows:
        place = row.get("victim"), row.get("pool_kind")
        if row.get(_KEY) is not None and (place not in best or _worth(row) > _worth(best[place])):
            best[place] = row
    return [
        {
            "kind": "clone",
            "victim": row.get("victim"),
            "seed": row.get("victim_seed"),
            "what": _told(row),
            "counts": row[_KEY],
        }
        for row in best.values()
    ]


def without_confusion(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows without their matrices, which would be most of the results file."""
    return [{name: value for name, value in row.items() if name != _KEY} for row in rows]


def _worth(row: Mapping[str, Any]) -> tuple[float, float]:
    return float(row.get("budget") or 0), float(row.get("clone_accuracy") or 0)


def _told(row: Mapping[str, Any]) -> str:
    parts = (row.get(name) for name in ("attack", "treatment", "pool", "surrogate"))
    thief = " / ".join(str(part) for part in parts if part)
    defence = row.get("defence")
    behind = "" if defence in (None, "none") else f" behind {defence}"
    return f"{thief} on {row.get('oracle')}{behind}, {row.get('budget'):,} queries"
