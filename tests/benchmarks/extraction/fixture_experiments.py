"""Experiments and victims as the benchmark writes them, with made-up numbers."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.records import ExperimentRecord, VictimIdentity, write_experiments
from benchmarks.extraction.specs import ExperimentSpec
from benchmarks.extraction.victim_archive import write_victims

SEEDS = (0, 1, 2)
FILES = {"model.onnx": "f" * 64}
OWN = {"float": 0.92, "qat": 0.91, "divqat-literal": 0.908, "divqat-nasty": 0.87}
DROP = {"divqat-nasty": 0.12}  # of the soft answers' clones
ATTACKERS = (
    ("knockoff-random", "soft", "soft", "wallpapers", "out", 0.10),
    ("knockoff-random", "argmax", "soft", "wallpapers", "out", 0.14),
    ("knockoff-random", "soft", "top1", "wallpapers", "out", 0.13),
    ("knockoff-random", "soft", "soft", "in", "in", 0.03),
    ("knockoff-random", "soft", "top1", "in", "in", 0.04),
    ("dfme", "soft", "soft", "none", "free", 0.30),
)


def write(folder: Path, *, victims: bool = True) -> Path:
    """A folder of results."""
    write_experiments(folder, experiments())
    if victims:
        write_victims(folder, [record(variant, seed) for variant in OWN for seed in SEEDS])
    return folder


def experiments() -> list[ExperimentRecord]:
    """Every attacker on every victim at two budgets, and one defence at three costs."""
    rng = np.random.default_rng(3)
    rows = []
    for variant, own in OWN.items():
        for seed in SEEDS:
            for budget in (500, 8000):
                for attacker in ATTACKERS:
                    if variant in ("float", "divqat-literal") and attacker[0] == "dfme":
                        continue  # not attacked without data
                    soft = attacker[2] != "top1" and attacker[4] != "in"
                    lost = attacker[5] * 8000**0.25 / budget**0.25
                    value = own - lost - DROP.get(variant, 0) * soft + rng.normal(0, 0.003)
                    rows.append(experiment(variant, seed, attacker, budget, round(value, 4)))
    for variant, name, cost, value in (
        ("qat", "reverse-sigmoid:0.5", 0.4, 0.75),
        ("qat", "reverse-sigmoid:0.9", 0.7, 0.70),
        ("divqat-nasty", "reverse-sigmoid:0.5", 0.69, 0.62),
    ):
        for seed in SEEDS:
            some = experiment(variant, seed, ATTACKERS[0], 8000, value + seed / 100, name)
            rows.append(some.model_copy(update={"defence_cost": {"l1": cost}}))
    return rows


def experiment(
    variant: str,
    seed: int,
    attacker: tuple[str, str, str, str, str, float],
    budget: int,
    value: float,
    defence: str = "none",
) -> ExperimentRecord:
    attack, treatment, oracle, pool, kind, _ = attacker
    name = (
        f"digits.m-w4a4.{variant}.{oracle}.{defence}.{attack}.{treatment}.{pool}.{budget}.v{seed}"
    )
    return ExperimentRecord(
        name=name.replace(":", "_"),
        key="0",
        dataset="digits",
        model="digits-cnn",
        bits="float32" if variant == "float" else "w4a4",
        victim=variant,
        victim_seed=seed,
        engine="torch" if variant == "float" else "integer",
        oracle=oracle,
        defence=defence,
        attack=attack,
        treatment=treatment,
        pool=pool,
        pool_kind=kind,
        budget=budget,
        queries_used=budget,
        surrogate="vgg-small",
        seed=seed,
        clone_accuracy=value,
        agreement=value,
        victim_accuracy=record(variant, seed)["test_accuracy"],
        victim_validation_accuracy=0.9,
        victim_record=VictimIdentity(name=_victim(variant, seed), key="k" * 64, sha256=FILES),
        spec={},
        pool_images=budget,
        pool_sha256="0",
        seconds={"victim": 0.0, "attacker": 0.0},
        threads=1,
        versions={},
        history=[],
        rounds=0,
        settings={},
    )


def record(variant: str, seed: int) -> dict[str, Any]:
    accuracy = round(OWN.get(variant, 0.9) + 0.002 * (seed - 1), 4)
    moved = {"images": 900, "reference_fooled": 0.9, "device_fooled": 0.6}
    moved |= {"transferred": 0.65, "evasive": 0.01}
    utility = {"accuracy": accuracy, "ece": 0.03, "nll": 0.3, "ood_auroc": 0.9}
    utility |= {"l1_to_reference": 0.1, "flips_from_reference": 0.02}
    return {
        "name": _victim(variant, seed),
        "key": "k" * 64,
        "sha256": FILES,
        "test_accuracy": accuracy,
        "utility": utility | {"adversarial": {"pgd-8/255": moved}},
        "history": [{"epoch": 1, "loss": 2.0}],
    }


def _victim(variant: str, seed: int) -> str:
    return f"digits.m.w4a4.{variant}.v{seed}"


def of_spec(spec: ExperimentSpec, clone_accuracy: float = 0.5) -> ExperimentRecord:
    """What a planned experiment could have given; the victim has 90 % accuracy."""
    like = experiment(spec.label, spec.victim.seed, ATTACKERS[0], spec.attack.budget, 0.5)
    identity = {"name": spec.name, "key": spec.key}
    measured = {"clone_accuracy": clone_accuracy, "victim_accuracy": 0.9}
    return like.model_copy(update=identity | measured)
