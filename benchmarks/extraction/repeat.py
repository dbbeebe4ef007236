"""One experiment run again, beside what is committed: whether a result can be reproduced."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from benchmarks.extraction.experiment import run_experiment
from benchmarks.extraction.runner import Place
from benchmarks.extraction.specs import ExperimentSpec
from benchmarks.extraction.victims import VictimStore
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction.evaluation.statistics import t_quantile
from fpga_flow.pipeline.task_process import one_thread


@dataclass(frozen=True)
class Repeat:
    """A committed value, the same run again, and what was to be expected.

    Attributes:
        name: of the experiment.
        committed: clone accuracy on record.
        new: clone accuracy now.
        interval: in which one more run at another seed falls 19 times in 20, from the committed
            seeds; None where only one seed is committed, and nothing can be said.
    """

    name: str
    committed: float
    new: float
    interval: tuple[float, float] | None

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
        return (
            f"{self.name}: committed {self.committed:.2%}, now {self.new:.2%}, {low_high}{verdict}"
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
    half = t_quantile(len(values) - 1) * stdev(values) * sqrt(1 + 1 / len(values))
    return fmean(values) - half, fmean(values) + half


def repeat(name: str, experiments: Sequence[ExperimentSpec], place: Place) -> Repeat:
    """Run one experiment again, without writing it; on the victim that is kept with the results.

    Args:
        name: of the experiment.
        experiments: the plan.
        place: where the committed results are.

    Raises:
        InputError: no such experiment, or none committed.
    """
    wanted = [experiment for experiment in experiments if experiment.name == name]
    if not wanted:
        raise InputError(
            f"the plan has no experiment {name!r}. `divqat bench extraction --list` shows them."
        )
    records = place.experiments
    committed = records.get(wanted[0])
    if committed is None:
        raise InputError(f"the experiment {name!r} has no result in {place.results} yet.")
    same = [spec for spec in experiments if spec.configuration == wanted[0].configuration]
    values = [record.clone_accuracy for spec in same if (record := records.get(spec)) is not None]
    with one_thread():
        store = VictimStore(place.work, place.root, kept=place.results)
        again = run_experiment(wanted[0], store)
    return Repeat(
        name=name,
        committed=committed.clone_accuracy,
        new=again.clone_accuracy,
        interval=prediction_interval(values),
    )
