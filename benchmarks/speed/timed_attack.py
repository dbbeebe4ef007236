"""One KnockoffNets run against the integer engine, with its time and memory, in this process."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from divqat_brevitas.extraction import KnockoffNets, PlainLearner, Victim
from divqat_brevitas.extraction.arrays import Images, Responses
from divqat_brevitas.extraction.learners.base import TrainedClone, TransferSet
from divqat_brevitas.extraction.predictor import TimedPredictor
from divqat_brevitas.extraction.surrogates.training import Epoch
from fpga_flow.integer.engine import IntegerEngine


@dataclass(frozen=True)
class TimedAttack:
    """What is attacked, and how.

    Attributes:
        qonnx: the victim's file.
        queries: asked, each on an image of its own.
        surrogate: the clone's network.
        epochs: of its training.
        threads: of PyTorch.
    """

    qonnx: Path
    queries: int
    surrogate: str
    epochs: int
    threads: int


class _TimedVictim(Victim):
    """Counts the seconds in queries: checks, engine, oracle and ledger."""

    seconds = 0.0

    def query(self, images: Images) -> Responses:
        start = time.perf_counter()
        answers = super().query(images)
        self.seconds += time.perf_counter() - start
        return answers


@dataclass(frozen=True, kw_only=True)
class _TimedLearner(PlainLearner):
    """Reports the seconds in training."""

    clock: Callable[[float], None]

    @property
    def settings(self) -> dict[str, Any]:
        return {"surrogate": self.surrogate, "epochs": self.epochs}

    def learn(
        self,
        answered: TransferSet,
        seed: int,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> TrainedClone:
        start = time.perf_counter()
        learned = super().learn(answered, seed, on_epoch)
        self.clock(time.perf_counter() - start)
        return learned


def run_timed(attack_run: TimedAttack) -> dict[str, Any]:
    """Run it; seconds by part, and resident memory in bytes before and at its peak.

    Memory is the process's: run it in one of its own.
    """
    torch.set_num_threads(attack_run.threads)
    network = IntegerEngine(attack_run.qonnx)
    shape = network.network.input_shape
    pool = np.random.default_rng(0).integers(0, 256, (attack_run.queries, *shape), dtype=np.uint8)
    engine = TimedPredictor(network)
    victim = _TimedVictim(engine, oracle="soft", budget=attack_run.queries)
    training: list[float] = []
    learner = _TimedLearner(
        surrogate=attack_run.surrogate, epochs=attack_run.epochs, clock=training.append
    )
    network.predict(np.zeros((1, *shape), np.float32))
    before = _peak_memory()
    start = time.perf_counter()
    result = KnockoffNets(learner=learner, seed=0).run(victim, pool)
    total = time.perf_counter() - start
    return {
        "queries": result.queries_used,
        "counted": victim.queries_used,
        "batches": len(victim.ledger),
        "seconds": {
            "total": total,
            "victim": victim.seconds,
            "engine": engine.seconds,
            "training": sum(training),
        },
        "loss": [row["loss"] for row in result.history],
        "memory": {"before": before, "peak": _peak_memory(), "pool": pool.nbytes},
    }


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
