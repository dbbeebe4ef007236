"""The compact matrix for a data set of the user's own, instead of the committed four.

Grey images have victims, attackers and pools of Fashion-MNIST's matrix, colour images those of
CIFAR-10's. Its settings were chosen on those two sets, so a victim elsewhere may lose more.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.extraction.plan import SCALES, experiments_of
from benchmarks.extraction.scenarios import COMPACT, Scenario
from benchmarks.extraction.specs import ExperimentSpec
from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.errors import DivQATError, InputError

_GREY, _COLOUR = COMPACT[0], COMPACT[1]
_SMALLEST_SIDE = 8
# What is seen in a mirror is another class, or none.
_NOT_MIRRORED = ("svhn", "gtsrb")


@dataclass(frozen=True)
class OwnScenario:
    """An scenario for a data set.

    Attributes:
        scenario: as it can be run on this machine.
        left_out: why a pool is not in it, a line each.
    """

    scenario: Scenario
    left_out: tuple[str, ...]

    @property
    def experiments(self) -> list[ExperimentSpec]:
        """Its experiments, in the order they are run, at the seeds of the compact matrix."""
        return experiments_of([self.scenario], SCALES["compact"][1])


def scenario_of(dataset: str, root: Path | None = None) -> OwnScenario:
    """The compact matrix for ``dataset``.

    Args:
        dataset: a name that ``divqat_brevitas.data.load`` takes, such as "svhn", "cifar100" or
            "imagefolder:PATH".
        root: data folder; None: the cache.

    Raises:
        InputError: no such set, not there, or images below 8x8.

    Example:
        >>> own = scenario_of("digits")
        >>> own.scenario.recipe["model"], own.scenario.pools[-1]
        ('fashion-cnn', 'in')
    """
    info = dataset_info(dataset)
    if min(info.shape[1:]) < _SMALLEST_SIDE:
        raise InputError(
            f"the matrix needs images of at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE}, and those of "
            f"{dataset!r} are {info.shape[1]}x{info.shape[2]}."
        )
    load(dataset, "test", root)  # says how to get what is not there
    model = _GREY if info.shape[0] == 1 else _COLOUR
    recipe = model.recipe | {"dataset": dataset}
    if dataset.partition(":")[0] in _NOT_MIRRORED:
        recipe["augment"] = "shift"
    refused = {pool: _refused(pool, dataset, root) for pool in model.pools}
    pools = tuple(pool for pool, why in refused.items() if why is None)
    left_out = tuple(f"pool {pool} is left out: {why}" for pool, why in refused.items() if why)
    return OwnScenario(replace(model, recipe=recipe, pools=pools), left_out)


def _refused(pool: str, dataset: str, root: Path | None) -> str | None:
    """Why no image can be drawn from a pool; None where one can."""
    try:
        query_pool(pool, dataset, 1, 0, root)
    except DivQATError as e:
        return str(e)
    return None
