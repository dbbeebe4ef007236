"""Attack: extract every victim through its engine, one task an attack.

Where ``run.threads`` leaves cores free, attacks run in several processes, and beside the stages
that build and simulate hardware.

Reads export/ (and train/ for float victims). Writes attack/<name>.json, one row each, and of a
victim with a reject class attack/detection/<victim>.json, the rows of its tripwire.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.data.pools import check_unseen
from divqat_brevitas.errors import InputError
from divqat_brevitas.extraction import Predictor, attack_spec, make_oracle
from divqat_brevitas.extraction.arrays import to_float
from divqat_brevitas.extraction.attack_spec import AttackSpec
from divqat_brevitas.extraction.detection.trials import (
    NO_TRIPWIRE,
    Asker,
    choose_tripwire,
    false_alarm_rate,
    mixed_rows,
)
from divqat_brevitas.extraction.evaluation.metrics import labels_of
from divqat_brevitas.files import sha256_file, sha256_text, write_json
from divqat_brevitas.quant.loss import loss_settings
from fpga_flow.console import Progress
from fpga_flow.pipeline.config import Config
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import (
    BUILT,
    VictimId,
    answer_of,
    chip_unit,
    defender,
    predictor,
    split,
    victims,
)
from fpga_flow.pipeline.task_process import processes, processes_beside
from fpga_flow.pipeline.tasks import Outcome, Summary, Task, run_tasks
from fpga_flow.report.collection import confusion

_USERS = 10_000  # simulated honest users of a tripwire
_BUDGET = 1000  # queries where the settings name no budget, and every pool has as many
_NICE = 10  # of attacks beside earlier stages: nothing waits for them yet


@dataclass(frozen=True)
class Attack:
    """One task: a victim, and what the attacker does."""

    victim: VictimId
    spec: AttackSpec

    @property
    def name(self) -> str:
        """Its file's name: readable, and unlike any other's."""
        how = self.spec
        key = [self.victim.stem, how.oracle, how.defence, how.pool, how.attack, how.learner]
        key += [how.surrogate, str(how.budget), f"s{how.seed}"]
        key += [how.answer] if how.answer != "logits" else []
        text = "-".join(key)
        # A pool may be a path: what no file name can hold is replaced, and told apart by a hash.
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in text)
        return name if name == text else f"{name[:100]}-{sha256_text(text)[:8]}"


def attacks(config: Config) -> Iterator[Attack]:
    """Every combination of the settings; one that repeats another is left out."""
    chosen = config.attack
    targets = [v for v in victims(config) if not chosen.victims or v.variant in chosen.victims]
    for victim, how in itertools.product(targets, _attack_specs(config)):
        yield Attack(victim, replace(how, answer=answer_of(config, victim)))


def budgets(config: Config) -> tuple[int, ...]:
    """The query budgets that are set, else one that every pool of the settings can fill."""
    chosen = config.attack
    if chosen.budgets:
        return chosen.budgets
    if all(attack_spec.starts_from(attack) == "free" for attack in chosen.attacks):
        return (_BUDGET,)
    data = config.data
    sizes = (attack_spec.pool_size(pool, data.name, data.root) for pool in chosen.pools)
    return (min([_BUDGET, *(size for size in sizes if size is not None)]),)


def _attack_specs(config: Config) -> list[AttackSpec]:
    chosen = config.attack
    axes = {
        "oracle": chosen.oracles,
        "defence": chosen.defences,
        "pool": chosen.pools,
        "attack": chosen.attacks,
        "learner": chosen.learners,
        "surrogate": chosen.surrogates,
        "budget": budgets(config),
        "seed": chosen.seeds,
    }
    specs = []
    for values in itertools.product(*axes.values()):
        point: dict[str, Any] = dict(zip(axes, values, strict=True))
        # A label is its own argmax: nothing to treat.
        only_label = point["oracle"] == "top1" and point["learner"] == "argmax"
        if only_label and "soft" in chosen.learners:
            continue
        if attack_spec.starts_from(point["attack"]) == "free":
            point["pool"] = attack_spec.NO_POOL
        specs.append(AttackSpec(**point, epochs=chosen.epochs))
    return list(dict.fromkeys(specs))  # an attack without a pool is one, however many pools


def check(config: Config) -> None:
    """Look up every name, and whether the pools are large enough, before hours of training."""
    dataset = config.data.name
    dataset_info(dataset)
    for oracle in config.attack.oracles:
        make_oracle(oracle)
    largest: dict[str, int] = {}
    for how in _attack_specs(config):
        attack_spec.check(how)
        if attack_spec.needs_shadow(how.learner) or "ensemble" in how.defence:
            what = how.learner if attack_spec.needs_shadow(how.learner) else how.defence
            raise InputError(
                f"attack: {what!r} needs further trained networks, which a run does not have: "
                "`divqat bench extraction` trains them."
            )
        if how.pool != attack_spec.NO_POOL:
            count = attack_spec.query_count(how, dataset, config.data.root)
            largest[how.pool] = max(count, largest.get(how.pool, 0))
    divqat = config.divqat
    trained = loss_settings(divqat.preset, **divqat.changes).trained_pool
    for pool, count in largest.items():
        if trained and "divqat" in config.train.variants:
            check_unseen(trained, pool)
        # What is drawn or rendered does not run out: one image shows that it can be had.
        finite = attack_spec.pool_size(pool, dataset, config.data.root) is not None
        query_pool(pool, dataset, count if finite else 1, 0, config.data.root)


def run(context: StageContext) -> None:
    """Run every attack that has no result yet."""
    if not context.config.attack.budgets:
        context.progress.log(
            f"attack.budgets is not set: each attack may ask {budgets(context.config)[0]} queries "
            f"(at most {_BUDGET}, and no more than the smallest pool has images)."
        )
    planned = list(attacks(context.config))
    _run_beside(context, planned)
    _run_here(context, planned, "")
    pools = list(dict.fromkeys(attack.spec.pool for attack in planned))
    for victim in dict.fromkeys(attack.victim for attack in planned):
        _detect(
            context, victim, [pool for pool in pools if pool not in ("in", attack_spec.NO_POOL)]
        )


def _detect(context: StageContext, victim: VictimId, pools: Sequence[str]) -> None:
    """Try the tripwire on a victim with a reject class or output."""
    config = context.config
    settings = loss_settings(config.divqat.preset, **config.divqat.changes)
    if victim.variant != "divqat" or not settings.ood_weight:
        return
    reject_class = settings.decoy_class
    output = reject_class is None
    if reject_class is None:  # the reject output stands behind the classes
        reject_class = len(dataset_info(config.data.name).classes)
    name = f"detection/{victim.stem}.json"

    def write() -> None:
        # The engine that equals the hardware; what the chip shows may hide a rejection.
        model, data = predictor(context, victim, "integer"), config.data

        def rejected(images: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
            bits: npt.NDArray[np.bool_] = labels_of(model, to_float(images)) == reject_class
            return bits

        validation, test = (split(config, part) for part in ("val", "test"))
        chosen = choose_tripwire(rejected(validation[0]), validation[1], one_class=output)
        if chosen is None:
            context.progress.log(f"attack: {victim.stem}: {NO_TRIPWIRE}")
            write_json(context.folder / name, [])
            return
        tripwire, about = chosen
        honest, own = rejected(test[0]), rejected(load(data.name, "pool", data.root)[0][:_BUDGET])
        false = false_alarm_rate(tripwire, Asker((honest,)), _USERS)
        rows = []
        for pool in pools:
            size = attack_spec.pool_size(pool, data.name, data.root)
            count = _BUDGET if size is None else min(size, _BUDGET)
            bits = rejected(query_pool(pool, data.name, count, 0, data.root).images)
            rows += [
                about | row | {"false_alarm_rate": false, "users": _USERS}
                for row in mixed_rows(tripwire, victim.variant, pool, bits, own, _BUDGET)
            ]
        write_json(context.folder / name, rows)

    key = {
        "victim": context.hash(victim.attacked),
        "pools": list(pools),
        "data": config.fingerprint("data"),
        "reject_class": reject_class,
    }
    context.task(f"detection-{victim.stem}", key, [name], write)


def ahead(context: StageContext) -> list[Task]:
    """Tasks for every attack that has no result yet and waits for no hardware."""
    if context.config.attack.engine in BUILT:
        return []
    return _tasks(context, list(attacks(context.config)), _NICE)


def _run_beside(context: StageContext, planned: Sequence[Attack]) -> None:
    """Run attacks in processes of their own; what fails there is left, to fail here again."""
    threads = context.config.run.threads
    count = processes_beside(threads)
    if count > 1 and len(tasks := _tasks(context, planned)) > 1:
        with processes(count, threads or 1) as submit:
            run_tasks(tasks, submit, Summary(), log=context.progress.log)


def _tasks(context: StageContext, planned: Sequence[Attack], nice: int = 0) -> list[Task]:
    """The attacks that have no result yet, as tasks for the processes that the cores allow."""
    config = context.config
    common = {
        "run": str(context.run.path.absolute()),
        "config": config.model_dump_json(),
        "readable": sorted(context.readable),
        "nice": nice,
    }
    function = f"{run_part.__module__}:{run_part.__name__}"
    tasks = []
    for victim, group in itertools.groupby(planned, key=lambda attack: attack.victim):
        key = _Attacker(context, victim, Path()).key
        waiting = [one for one in group if not context.done(one.name, key(one))]
        parts = _parts(waiting, processes_beside(config.run.threads))
        for number, part in enumerate(parts, start=1):
            label = f"{victim.stem}, part {number} of {len(parts)}"
            arguments = common | {"label": label, "names": [one.name for one in part]}
            tasks.append(Task(f"attacks on {label}", label, function, arguments))
    return tasks


def _parts(planned: Sequence[Attack], count: int) -> list[list[Attack]]:
    """``planned`` in at most ``count`` parts; attacks that can share clones are in the same."""
    shared: dict[tuple[object, ...], list[Attack]] = {}
    for one in planned:
        how = one.spec
        shared.setdefault((how.pool, how.attack, how.budget, how.seed), []).append(one)
    costs = [(sum(_cost(one.spec) for one in group), group) for group in shared.values()]
    parts: list[list[Attack]] = [[] for _ in range(count)]
    load = [0] * count
    for cost, group in sorted(costs, key=lambda pair: -pair[0]):
        least = load.index(min(load))
        parts[least] += group
        load[least] += cost
    return [part for part in parts if part]


def _cost(how: AttackSpec) -> int:
    """About what an attack takes; one that chooses its images trains another network for that."""
    return how.budget if how.attack in attack_spec.ASKS_EVERY_IMAGE else 2 * how.budget


def run_part(task: Task) -> Outcome:
    """Run some of a run's attacks, named in the arguments, for a process that has its lock."""
    given = task.arguments
    os.nice(given["nice"])
    config = Config.model_validate_json(given["config"])
    run, readable = RunDirectory(Path(given["run"])), frozenset(given["readable"])
    context = StageContext("attack", run, config, Progress(), readable)
    chosen = [one for one in attacks(config) if one.name in given["names"]]
    _run_here(context, chosen, str(given["label"]))
    return Outcome("done", f"{len(chosen)} attacks")


def _run_here(context: StageContext, planned: Sequence[Attack], label: str) -> None:
    with TemporaryDirectory(prefix="divqat-") as clones:
        for victim, group in itertools.groupby(planned, key=lambda attack: attack.victim):
            attacker = _Attacker(context, victim, Path(clones))
            about = f"attacks on {label or victim.stem}"
            for attack in context.progress.track(list(group), about):
                outputs = [f"{attack.name}.json"]
                context.task(
                    attack.name, attacker.key(attack), outputs, partial(attacker.run, attack)
                )


@dataclass(frozen=True)
class _Target:
    """The model under attack, the test set, and the labels that the model gives it."""

    model: Predictor
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]


class _Attacker:
    """Runs attacks on one victim; its engine and the test set are loaded when first needed.

    ``clones`` is a folder for trained clones: two attacks that end in the same images and labels,
    as labels and the argmax of soft responses do, train one clone.
    """

    def __init__(self, context: StageContext, victim: VictimId, clones: Path) -> None:
        self.context = context
        self.victim = victim
        self.clones = clones
        self.config = config = context.config
        self.defender = defender(config, victim)

    @cached_property
    def target(self) -> _Target:
        images, labels = split(self.config, "test")
        answer = chip_unit(self.context, self.victim)
        model = predictor(self.context, self.victim, self.engine, answer)
        return _Target(model, images, labels, labels_of(model, images))

    @property
    def engine(self) -> str:
        return "torch" if self.victim.variant == "float" else self.config.attack.engine

    def key(self, attack: Attack) -> dict[str, object]:
        """Everything the result depends on."""
        key_file = self.config.compile.answer_key
        return {
            "attack": asdict(attack),
            "engine": self.engine,
            "data": self.config.fingerprint("data"),
            "victim": self.context.hash(self.victim.attacked),
            "answer_key": sha256_file(key_file) if key_file else None,
        }

    def run(self, attack: Attack) -> None:
        """Run one attack and write its row."""
        target, model = self.target, self.target.model
        how, data = attack.spec, self.config.data
        queries = attack_spec.draw_queries(how, data.name, data.root)
        # Built anew for every attack: a randomised one begins its stream again.
        found = self.defender.at_cost(how.defence, how.seed, model)
        made = how.defence if found is None else found.spec
        defence = self.defender.defence(made, seed=how.seed)
        outcome = attack_spec.run_attack(how, model, queries, defence=defence, remember=self.clones)
        classes = len(dataset_info(data.name).classes)
        guesses = labels_of(outcome.result.clone, target.images, classes)
        row = outcome.row(
            victim=self.victim.variant,
            victim_seed=self.victim.seed,
            engine=self.engine,
            clone_accuracy=float((guesses == target.labels).mean()),
            agreement=float((guesses == target.predicted).mean()),
        )
        shown: dict[str, object] = {"answer": how.answer} if how.answer != "logits" else {}
        if found is not None:
            shown |= {"defence_l1": found.cost.l1, "defence_found": asdict(found)}
        counts = confusion(target.labels, guesses, classes)
        if counts is not None:
            shown["confusion"] = counts
        write_json(self.context.folder / f"{attack.name}.json", {**row.model_dump(), **shown})
