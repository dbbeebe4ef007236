"""One cell run again, beside what is committed: whether a result can be reproduced."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.extraction.cells import cell_file, run_cell
from benchmarks.extraction.runner import Place, one_thread
from benchmarks.extraction.specs import CellSpec
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.statistics import t_quantile
from divqat_brevitas.files import read_json


@dataclass(frozen=True)
class Repeat:
    """A committed value, the same run again, and what was to be expected.

    Attributes:
        name: of the cell.
        committed: clone accuracy on record.
        new: clone accuracy now.
        interval: in which one more run at another seed falls 19 times in 20, from the committed
            seeds; None where only one seed is committed, and nothing can be said.
        stale: whether the committed cell was run with other settings than the plan's now.
    """

    name: str
    committed: float
    new: float
    interval: tuple[float, float] | None
    stale: bool

    @property
    def inside(self) -> bool:
        """Whether the new value is within the interval; equal values always are."""
        if self.interval is None:
            return True
        return self.new == self.committed or self.interval[0] <= self.new <= self.interval[1]

    def __str__(self) -> str:
        low_high = (
            "no interval: one seed"
            if self.interval is None
            else f"interval {self.interval[0]:.2%} to {self.interval[1]:.2%}"
        )
        verdict = "" if self.interval is None else (" inside" if self.inside else " OUTSIDE")
        note = ", committed with other settings" if self.stale else ""
        return (
            f"{self.name}: committed {self.committed:.2%}, now {self.new:.2%}, "
            f"{low_high}{verdict}{note}"
        )


def prediction_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """In which one more value of the same kind falls with 95 %: mean ± t·s·√(1 + 1/n).

    Example:
        >>> prediction_interval([0.5]) is None
        True
        >>> low, high = prediction_interval([0.50, 0.52, 0.54])
        >>> round(low, 3), round(high, 3)
        (0.421, 0.619)
    """
    if len(values) < 2:
        return None
    t = t_quantile(len(values) - 1)
    half = t * stdev(values) * sqrt(1 + 1 / len(values))
    return fmean(values) - half, fmean(values) + half


def repeat(name: str, cells: Sequence[CellSpec], place: Place) -> Repeat:
    """Run one cell again, without writing it; on the victim that is kept with the results.

    Args:
        name: of the cell.
        cells: the plan.
        place: where the committed results are.

    Raises:
        InputError: no such cell, or none committed.
    """
    wanted = [cell for cell in cells if cell.name == name]
    if not wanted:
        raise InputError(
            f"the plan has no cell {name!r}. `divqat bench extraction --list` shows them."
        )
    committed = _committed(place.results, wanted[0])
    if committed is None:
        raise InputError(f"the cell {name!r} has no result in {place.results / 'cells'} yet.")
    same = [cell for cell in cells if cell.configuration == wanted[0].configuration]
    values = [found[0] for cell in same if (found := _committed(place.results, cell))]
    with one_thread():
        cell = run_cell(wanted[0], VictimStore(place.work, place.root, kept=place.results))
    return Repeat(
        name=name,
        committed=committed[0],
        new=cell["clone_accuracy"],
        interval=prediction_interval(values),
        stale=committed[1] != wanted[0].key,
    )


def _committed(folder: Path, cell: CellSpec) -> tuple[float, str] | None:
    """Clone accuracy and key on record."""
    path = cell_file(folder, cell)
    if not path.is_file():
        return None
    found = read_json(path)
    return float(found["clone_accuracy"]), str(found["key"])
