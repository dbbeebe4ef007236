"""Cells and victims as the benchmark writes them, with made-up numbers: two seeds short of much."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (0, 1, 2)
OWN = {"float": 0.92, "qat": 0.91, "divqat-literal": 0.908, "divqat-nasty": 0.87}
DROP = {"divqat-nasty": 0.12}  # of the soft answers' clones
THIEVES = (
    ("knockoff-random", "soft", "soft", "wallpapers", "out", 0.10),
    ("knockoff-random", "argmax", "soft", "wallpapers", "out", 0.14),
    ("knockoff-random", "soft", "top1", "wallpapers", "out", 0.13),
    ("knockoff-random", "soft", "soft", "in", "in", 0.03),
    ("knockoff-random", "soft", "top1", "in", "in", 0.04),
    ("dfme", "soft", "soft", "none", "free", 0.30),
)


def write(folder: Path, *, victims: bool = True) -> Path:
    """A folder of results."""
    rng = np.random.default_rng(3)
    for variant, own in OWN.items():
        for seed in SEEDS:
            if victims:
                _put(folder / "victims" / f"{_victim(variant, seed)}.json", record(variant, seed))
            for budget in (500, 8000):
                for thief in THIEVES:
                    if variant in ("float", "divqat-literal") and thief[0] == "dfme":
                        continue  # not studied
                    soft = thief[2] != "top1" and thief[4] != "in"
                    lost = thief[5] * 8000**0.25 / budget**0.25
                    value = own - lost - DROP.get(variant, 0) * soft + rng.normal(0, 0.003)
                    _cell(folder, cell(variant, seed, thief, budget, round(float(value), 4)))
    for variant, name, cost, value in (
        ("qat", "reverse-sigmoid:0.5", 0.4, 0.75),
        ("qat", "reverse-sigmoid:0.9", 0.7, 0.70),
        ("divqat-nasty", "reverse-sigmoid:0.5", 0.69, 0.62),
    ):
        for seed in SEEDS:
            some = cell(variant, seed, THIEVES[0], 8000, value + seed / 100, name)
            _cell(folder, some | {"defence_l1": cost})
    return folder


def cell(
    variant: str,
    seed: int,
    thief: tuple[str, str, str, str, str, float],
    budget: int,
    value: float,
    defence: str = "none",
) -> dict[str, Any]:
    attack, treatment, oracle, pool, kind, _ = thief
    name = (
        f"digits.m-w4a4.{variant}.{oracle}.{defence}.{attack}.{treatment}.{pool}.{budget}.v{seed}"
    )
    return {
        "schema": 1,
        "name": name.replace(":", "_"),
        "key": "0",
        "dataset": "digits",
        "model": "digits-cnn",
        "bits": "float32" if variant == "float" else "w4a4",
        "victim": variant,
        "victim_seed": seed,
        "engine": "torch" if variant == "float" else "integer",
        "oracle": oracle,
        "defence": defence,
        "attack": attack,
        "treatment": treatment,
        "pool": pool,
        "pool_kind": kind,
        "budget": budget,
        "queries_used": budget,
        "surrogate": "vgg-small",
        "seed": seed,
        "clone_accuracy": value,
        "agreement": value,
        "victim_accuracy": record(variant, seed)["test_accuracy"],
        "victim_validation_accuracy": 0.9,
        "victim_record": {"name": _victim(variant, seed), "key": "k" * 64, "sha256": {}},
    }


def record(variant: str, seed: int) -> dict[str, Any]:
    accuracy = round(OWN[variant] + 0.002 * (seed - 1), 4)
    moved = {"images": 900, "reference_fooled": 0.9, "device_fooled": 0.6}
    moved |= {"transferred": 0.65, "evasive": 0.01}
    utility = {"accuracy": accuracy, "ece": 0.03, "nll": 0.3, "ood_auroc": 0.9}
    utility |= {"l1_to_reference": 0.1, "flips_from_reference": 0.02}
    return {
        "name": _victim(variant, seed),
        "key": "k" * 64,
        "test_accuracy": accuracy,
        "utility": utility | {"adversarial": {"pgd-8/255": moved}},
        "history": [{"epoch": 1, "loss": 2.0}],
    }


def _victim(variant: str, seed: int) -> str:
    return f"digits.m.w4a4.{variant}.v{seed}"


def _cell(folder: Path, some: dict[str, Any]) -> None:
    _put(folder / "cells" / f"{some['name']}.json", some)


def _put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
