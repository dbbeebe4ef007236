"""Attack: steal every victim through its engine, one cell an attack.

Reads export/ (and train/ for float victims). Writes attack/<name>.json, one row each.
"""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from divqat_brevitas.data import dataset_info, load, query_pool
from divqat_brevitas.extraction import (
    KnockoffNets,
    Predictor,
    Victim,
    accuracy,
    agreement,
    attack_row,
    make_oracle,
)
from divqat_brevitas.files import sha256_text, write_json
from fpga_flow.config import Config
from fpga_flow.stages.context import StageContext
from fpga_flow.stages.victims import VictimId, predictor, split, victims


@dataclass(frozen=True)
class Attack:
    """One cell: who is robbed, and how."""

    victim: VictimId
    oracle: str
    pool: str
    strategy: str
    treatment: str
    surrogate: str
    budget: int
    seed: int

    @property
    def name(self) -> str:
        """Its file's name: readable, and unlike any other's."""
        key = [self.victim.stem, self.oracle, self.pool, self.strategy, self.treatment]
        key += [self.surrogate, str(self.budget), f"s{self.seed}"]
        text = "-".join(key)
        # A pool may be a path: what no file name can hold is replaced, and told apart by a hash.
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in text)
        return name if name == text else f"{name[:100]}-{sha256_text(text)[:8]}"


def attacks(config: Config) -> Iterator[Attack]:
    """Every combination of the settings; one that repeats another is left out."""
    chosen = config.attack
    robbed = [v for v in victims(config) if not chosen.victims or v.variant in chosen.victims]
    for victim, oracle, pool, strategy, treatment, surrogate, budget, seed in itertools.product(
        robbed,
        chosen.oracles,
        chosen.pools,
        chosen.strategies,
        chosen.treatments,
        chosen.surrogates,
        chosen.budgets,
        chosen.seeds,
    ):
        # A label is its own argmax: nothing to treat.
        if oracle == "top1" and treatment == "argmax" and "soft" in chosen.treatments:
            continue
        yield Attack(victim, oracle, pool, strategy, treatment, surrogate, budget, seed)


def check(config: Config) -> None:
    """Look up every name, and whether the pools are large enough, before hours of training.

    Raises:
        InputError: an unknown name, or a pool that cannot be had.
    """
    dataset_info(config.data.name)
    for oracle in config.attack.oracles:
        make_oracle(oracle)
    for attack in attacks(config):
        _thief(config, attack)
    chosen = config.attack
    for pool, strategy in itertools.product(chosen.pools, chosen.strategies):
        # What is drawn or rendered does not run out: one image shows that it can be had.
        finite = pool == "in" or pool.startswith("dataset:")
        count = _pool_size(config, pool, strategy, max(chosen.budgets)) if finite else 1
        query_pool(pool, config.data.name, count, 0, config.data.root)


def run(context: StageContext) -> None:
    """Run every attack that has no result yet."""
    cells = list(attacks(context.config))
    for victim, group in itertools.groupby(cells, key=lambda attack: attack.victim):
        robber = _Robber(context, victim)
        for attack in context.progress.track(list(group), f"attacks on {victim.stem}"):
            outputs = [f"{attack.name}.json"]
            context.cell(attack.name, robber.key(attack), outputs, partial(robber.rob, attack))


class _Robber:
    """Runs attacks on one victim; its engine and the test set are loaded when first needed."""

    def __init__(self, context: StageContext, victim: VictimId) -> None:
        self.context = context
        self.victim = victim
        self.config = context.config
        self._loaded: tuple[Predictor, npt.NDArray[np.float32], npt.NDArray[np.int64]] | None = None

    @property
    def engine(self) -> str:
        return "torch" if self.victim.variant == "float" else self.config.attack.engine

    def key(self, attack: Attack) -> dict[str, object]:
        """Everything the result depends on."""
        return {
            "attack": asdict(attack),
            "epochs": self.config.attack.epochs,
            "engine": self.engine,
            "data": self.config.fingerprint("data"),
            "victim": self.context.hash(self.victim.attacked),
        }

    def rob(self, attack: Attack) -> None:
        """Run one attack and write its row."""
        if self._loaded is None:
            images, labels = split(self.config, "test")
            self._loaded = predictor(self.context, self.victim, self.engine), images, labels
        model, images, labels = self._loaded
        count = _pool_size(self.config, attack.pool, attack.strategy, attack.budget)
        data = self.config.data
        pool = query_pool(attack.pool, data.name, count, attack.seed, data.root)
        thief = _thief(self.config, attack)
        result = thief.run(Victim(model, oracle=attack.oracle, budget=attack.budget), pool)
        row = attack_row(
            victim=self.victim.variant,
            victim_seed=self.victim.seed,
            engine=self.engine,
            oracle=attack.oracle,
            attack=thief.name,
            treatment=attack.treatment,
            pool=pool.name,
            pool_kind=pool.kind,
            budget=attack.budget,
            queries_used=result.queries_used,
            surrogate=attack.surrogate,
            seed=attack.seed,
            clone_accuracy=accuracy(result.clone, images, labels),
            agreement=agreement(result.clone, model, images),
        )
        write_json(self.context.folder / f"{attack.name}.json", row)


def _thief(config: Config, attack: Attack) -> KnockoffNets:
    return KnockoffNets(
        surrogate=attack.surrogate,
        seed=attack.seed,
        strategy=attack.strategy,
        treatment=attack.treatment,
        epochs=config.attack.epochs,
    )


def _pool_size(config: Config, pool: str, strategy: str, budget: int) -> int:
    """As many images as the thief may ask; for one who chooses among them twice as many.

    Of the victim's own kind the choosing thief gets all there are, if they are fewer.
    """
    if strategy != "adaptive":
        return budget
    if pool != "in":
        return 2 * budget
    there = len(load(config.data.name, "pool", config.data.root)[1])
    return max(budget, min(2 * budget, there))
