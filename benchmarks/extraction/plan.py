"""What the benchmark runs: the experiments of its scenarios, in their order.

The plan has three parts. The *key* experiments support the claims: they attack plain QAT and the
victims with a gate with their scenario's main pool and the most successful learners, at three
victim seeds times three attack seeds. The *repeated* experiments run at three pairs of seeds: other
victims, learners, pools and data sets, smaller budgets, and combinations with existing defences.
The *corrected* experiments are those of both at the main budget, behind nothing or a gate, by the
same attacker with its clone corrected for the label prior, at the pairs of the repeated ones.
The *broad* experiments run once, and vary one thing at a time. An attacker that does better there
than in the key experiments leaves a claim undecided; it belongs among the repeated ones
(``Scenario.extra_attackers``).

All parts are run at one pair of seeds before the next pair, so that the results are a usable matrix
whenever a run is stopped.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.extraction.scenarios import COMPACT, MINI, PAPER, Scenario
from benchmarks.extraction.shadows import has_shadow
from benchmarks.extraction.specs import Changes, ExperimentSpec
from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.errors import DivQATError, InputError, unknown_name
from divqat_brevitas.extraction import ATTACKS
from divqat_brevitas.extraction.attack_spec import NO_POOL, needs_shadow
from divqat_brevitas.extraction.defences.owner import split_fallback
from divqat_brevitas.extraction.evaluation.summary import BASELINE
from divqat_brevitas.extraction.learners.catalogue import strongest_learners

Scale = Literal["mini", "compact", "paper"]
Pairs = tuple[tuple[int, int], ...]
_BREAKERS = ("soft", "argmax", "recovery", "ddae+", "pbayes")
"""Learners tried on every defence."""
_SORTER = "filtered"
_CORRECTION = "corrected"
_SORTERS = (_SORTER, "filtered-argmax")
"""Learners that sort a decoy's answers out, tried on whatever stands on top of a gate."""
_ANSWERS = ("top1", "posterior:2", "gated:{decoy}")
"""Answer units of the chip that are tried, with the learners "soft" and "centred"."""
_READERS = ("centred", _SORTER)
"""Learners that have done best against the decoy; of labels the last."""
_SURROGATES = ("resnet-small", "vgg-medium", "vgg-wide")


_SMALLEST_SIDE = 8  # pixels of a data set's images
# What is seen in a mirror is another class, or none.
_NOT_MIRRORED = ("svhn", "gtsrb")


@dataclass(frozen=True)
class Seeds:
    """The pairs (victim seed, attack seed) of each part; each begins with those of the next."""

    key: Pairs
    repeated: Pairs
    broad: Pairs


_ONE: Pairs = ((0, 0),)
# The first three pairs share neither seed, and so count most.
_THREE: Pairs = (*_ONE, (1, 1), (2, 2))
# Each victim meets each attack seed.
_NINE: Pairs = (*_THREE, (0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1))
SCALES: dict[str, tuple[tuple[Scenario, ...], Seeds]] = {
    "mini": (MINI, Seeds(_ONE, _ONE, _ONE)),
    "compact": (COMPACT, Seeds(_NINE, _THREE, _ONE)),
    "paper": (PAPER, Seeds(_NINE, _THREE, _THREE)),
}
"""Scenarios and seeds. "compact" takes 6 to 9 hours of 2 cores."""


def plan(scale: str) -> list[ExperimentSpec]:
    """All experiments of a scale, in the order they are run; no name twice.

    Raises:
        InputError: unknown scale.

    Example:
        >>> experiments = plan("compact")
        >>> {(experiment.victim.seed, experiment.attack.seed) for experiment in experiments[:100]}
        {(0, 0)}
    """
    if scale not in get_args(Scale):
        raise unknown_name("scale", scale, get_args(Scale))
    return experiments_of(*SCALES[scale])


@dataclass(frozen=True)
class OwnScenario:
    """The compact matrix for a data set of the user's own, instead of the committed four.

    Grey images have victims, attackers and pools of Fashion-MNIST's matrix, colour images those of
    CIFAR-10's. Its settings were chosen on those two sets, so a victim elsewhere may lose more.

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
    model = COMPACT[0] if info.shape[0] == 1 else COMPACT[1]
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


def experiments_of(scenarios: Iterable[Scenario], seeds: Seeds) -> list[ExperimentSpec]:
    """The experiments of some scenarios, in the order they are run; no name twice.

    Args:
        scenarios: run side by side.
        seeds: of each part.
    """
    scenarios = list(scenarios)
    key, repeated, corrected, broad = (
        _interleaved([list(part(scenario)) for scenario in scenarios])
        for part in (
            _key_experiments,
            _repeated_experiments,
            _corrected_experiments,
            _broad_experiments,
        )
    )
    first = len(seeds.repeated)
    order = [
        *((part, pair) for pair in seeds.repeated for part in (key, repeated, corrected)),
        *((broad, pair) for pair in seeds.broad),
        *((key, pair) for pair in seeds.key[first:]),
    ]
    return list(
        dict.fromkeys(experiment.seeded(*pair) for part, pair in order for experiment in part)
    )


def _key_experiments(scenario: Scenario) -> Iterator[ExperimentSpec]:
    """What the claims rest on: the scenario's main pool, and the learners that do best.

    With augmented images too: those are stronger where labels are few or wrong.
    """
    if not scenario.main:
        return
    for variant, gate in _protected(scenario):
        for augmented in ("", *scenario.augmented):
            yield scenario.experiment(variant, defence=gate, learner=augmented or "soft")
            yield scenario.experiment(variant, oracle="top1", learner=augmented or "soft")
            if gate != "none":
                yield scenario.experiment(
                    variant, oracle="top1", learner=_wrapped(augmented, _SORTER)
                )


def _repeated_experiments(scenario: Scenario) -> Iterator[ExperimentSpec]:
    """What says whether that holds elsewhere: other pools and budgets, defences on top."""
    for pool in scenario.pools:
        yield from _with_pool(scenario, pool)
    for variant in scenario.gated if scenario.main else ():
        for augmented, learner in product(scenario.augmented, _READERS):
            reader = _wrapped(augmented, learner)
            yield scenario.experiment(variant, defence=scenario.gate(variant), learner=reader)
    for variant, gate in _protected(scenario):
        for rival in scenario.extra_attackers.get(variant, ()):
            yield scenario.experiment(variant, defence=gate, **rival)
    for budget, (variant, gate) in product(scenario.budgets[1:], _protected(scenario)):
        yield scenario.experiment(variant, budget=budget, defence=gate)
        sorter = "soft" if gate == "none" else _SORTER
        yield scenario.experiment(variant, budget=budget, oracle="top1", learner=sorter)
    yield from _changed(scenario, scenario.repeated_variants)
    yield from _composed(scenario, scenario.combined_defences, shadow=False)


def _with_pool(scenario: Scenario, pool: str) -> Iterator[ExperimentSpec]:
    """Every fully studied victim, with the learners that have broken one."""
    for variant in scenario.full_matrix:
        yield scenario.experiment(variant, pool=pool)
        yield scenario.experiment(variant, pool=pool, oracle="top1")
        if gate := scenario.gate(variant):
            yield scenario.experiment(variant, pool=pool, oracle="top1", learner=_SORTER)
            yield scenario.experiment(variant, pool=pool, learner="centred")
            for learner in ("soft", *_READERS):
                yield scenario.experiment(variant, pool=pool, learner=learner, defence=gate)


def _wrapped(augmented: str, learner: str) -> str:
    return f"{augmented}-{learner}" if augmented else learner


def _composed(
    scenario: Scenario, defences: Iterable[str], *, shadow: bool = True
) -> Iterator[ExperimentSpec]:
    """Existing defences of the answers, before plain QAT and the victims with a gate.

    With ``shadow`` the learners too that train a victim of their own.
    """
    shadowed = shadow and has_shadow(scenario.recipe["dataset"])
    for defence in defences:
        for variant, gate in _protected(scenario):
            behind = defence if gate == "none" else f"{gate}+{defence}"
            for learner in _BREAKERS if gate == "none" else (*_BREAKERS, *_SORTERS):
                if shadowed or not needs_shadow(learner):
                    yield scenario.experiment(variant, defence=behind, learner=learner)


def _changed(
    scenario: Scenario, victims: Iterable[tuple[str, Changes]]
) -> Iterator[ExperimentSpec]:
    """Victims trained with other numbers than their preset's."""
    for variant, changes in victims:
        yield scenario.experiment(variant, changes, oracle="top1")
        for learner in ("soft", "centred"):
            yield scenario.experiment(variant, changes, learner=learner)
        if gate := scenario.gate(variant, changes):
            yield scenario.experiment(variant, changes, oracle="top1", learner=_SORTER)
            yield scenario.experiment(variant, changes, defence=gate)


def _corrected_experiments(scenario: Scenario) -> Iterator[ExperimentSpec]:
    """Whatever is measured at several seeds, by an attacker who corrects its clone.

    Existing defences are left to the broad experiments.
    """
    for experiment in chain(_key_experiments(scenario), _repeated_experiments(scenario)):
        attack = experiment.attack
        alone = split_fallback(attack.defence)[1] == "none"
        if alone and attack.budget == scenario.budgets[0]:
            yield replace(experiment, attack=replace(attack, learner=_corrected(attack.learner)))


def _corrected(learner: str) -> str:
    """The correction before a learner; behind a filter, where it sees what the filter leaves.

    Example:
        >>> _corrected("soft"), _corrected("centred"), _corrected("mirrored-filtered")
        ('corrected', 'corrected-centred', 'mirrored-filtered-corrected')
    """
    if learner.endswith(_SORTER):
        return f"{learner}-{_CORRECTION}"
    return _CORRECTION if learner == "soft" else f"{_CORRECTION}-{learner}"


def _broad_experiments(scenario: Scenario) -> Iterator[ExperimentSpec]:
    """Everything else there is, one thing varied at a time."""
    for variant in scenario.victims:
        yield scenario.experiment(variant)
        yield scenario.experiment(variant, oracle="top1")
    yield from _changed(scenario, scenario.frontier)
    if scenario.main:
        yield from _everything(scenario)
        yield from _composed(scenario, scenario.defences)


def _everything(scenario: Scenario) -> Iterator[ExperimentSpec]:
    """Each attack, learner, oracle, surrogate and answer unit once for each protected victim.

    Plain QAT, and the victims behind their gates. Without them they are attacked in the key
    experiments, by the learner that reads a decoy's true answer off.
    """
    shadowed = has_shadow(scenario.recipe["dataset"])
    for variant, gate in _protected(scenario):
        shown: dict[str, Any] = {"defence": gate}
        for name, entry in ATTACKS.built_in.items():  # not what this machine has beside them
            if entry.starts_from == "free":
                free: dict[str, Any] = {
                    "pool": NO_POOL,
                    "budget": scenario.free_budget or scenario.budgets[0],
                }
                yield scenario.experiment(variant, attack=name, **free, **shown)
            else:
                yield scenario.experiment(variant, attack=name, **shown)
        for pool in [pool for pool in scenario.pools if pool != "in"][:1]:
            # An attacker with a little of the victim's own kind among other images.
            mixed: dict[str, Any] = {"pool": f"mix:in:0.05,{pool}", **shown}
            yield scenario.experiment(variant, **mixed)
            yield scenario.experiment(variant, learner=_SORTER, **mixed)
        # Jacobian augmentation as its papers do it: from seed images of the victim's own kind.
        yield scenario.experiment(variant, attack="jbtr", pool="in", **shown)
        for learner in strongest_learners(shadow=shadowed):
            yield scenario.experiment(variant, learner=learner, **shown)
        for oracle in ("logits", "topk", "rounded"):
            yield scenario.experiment(variant, oracle=oracle, **shown)
        for surrogate in _SURROGATES:
            yield scenario.experiment(variant, surrogate=surrogate, **shown)
    for answer in _ANSWERS:
        for variant in scenario.gated:
            unit = answer.format(decoy=scenario.decoy_class(variant))
            yield scenario.experiment(BASELINE, answer=unit)
            for learner in ("soft", "centred"):
                yield scenario.experiment(variant, answer=unit, learner=learner)


def _protected(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """The victims on which everything is tried, and the gate they stand behind, or "none"."""
    yield BASELINE, "none"
    for variant in scenario.gated:
        yield variant, str(scenario.gate(variant))


def _interleaved(lists: Iterable[list[ExperimentSpec]]) -> list[ExperimentSpec]:
    """Each list spread evenly over the whole, so that no scenario has to wait for another's end."""
    placed = [
        ((index + 0.5) / len(experiments), number, experiment)
        for number, experiments in enumerate(lists)
        for index, experiment in enumerate(dict.fromkeys(experiments))
    ]
    return [experiment for _, _, experiment in sorted(placed, key=lambda item: item[:2])]
