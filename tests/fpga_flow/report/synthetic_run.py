"""Run directories as the stages write them, with made-up numbers."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
Maker = Callable[..., Path]

CONFIG = '[run]\nname = "demo"\nseeds = [0]\n\n[data]\nname = "digits"\n'
TOP = {"float": 0.981, "ptq": 0.951, "qat": 0.974, "divqat": 0.969}


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def attack_row(victim: str = "qat", accuracy: float = 0.9, **changed: Any) -> dict[str, Any]:
    row = {
        "victim": victim,
        "victim_seed": 0,
        "engine": "integer",
        "oracle": "soft",
        "defence": "none",
        "attack": "knockoff-random",
        "treatment": "soft",
        "pool": "letters",
        "pool_kind": "out",
        "budget": 400,
        "queries_used": 400,
        "surrogate": "vgg-small",
        "seed": 0,
        "clone_accuracy": accuracy,
        "agreement": 0.9,
    }
    return row | changed


def attack_rows(seeds: int, divqat_drop: float) -> Rows:
    noise = np.random.default_rng(7)
    rows = []
    for victim, own in TOP.items():
        for seed in range(seeds):
            for oracle in ("soft", "top1"):
                for pool, kind, base in (("in", "in", 0.02), ("letters", "out", 0.25)):
                    for budget in (100, 200, 400):
                        for treatment in ("soft", "argmax") if oracle == "soft" else ("soft",):
                            drop = divqat_drop if (victim, kind) == ("divqat", "out") else 0.0
                            lost = base * 200 / budget + drop + 0.03 * (oracle == "top1")
                            value = own - lost - 0.01 * (treatment == "argmax")
                            rows.append(
                                attack_row(
                                    victim,
                                    round(float(np.clip(value + noise.normal(0, 0.004), 0, 1)), 4),
                                    victim_seed=seed,
                                    seed=seed,
                                    oracle=oracle,
                                    treatment=treatment,
                                    pool=pool,
                                    pool_kind=kind,
                                    budget=budget,
                                    queries_used=budget,
                                )
                            )
    return rows


def detection_rows() -> Rows:
    return [
        {
            "victim": "divqat",
            "policy": "label-only",
            "pool": "letters",
            "share_in_distribution": share,
            "alarm_after_median": median,
            "detected": 0.25 if median is None else 1.0,
            "false_alarm_rate": 0.0002,
            "users": 10_000,
            "evasion": "own images" if share else "none",
            "queries_per_image": 1 / (1 - share),
            "false_alarm_bound": 0.00009,
        }
        for share, median in ((0.0, 7.0), (0.5, 21.0), (0.75, None))
    ]


def ownership_rows() -> Rows:
    return [
        {
            "victim": "divqat",
            "suspect": suspect,
            "suspect_kind": kind,
            "triggers": 25,
            "rate": rate,
            "null_rate": 0.02,
            "p_value": p_value,
        }
        for suspect, kind, rate, p_value in (
            ("clone.onnx", "clone", 0.48, 3.5e-11),
            ("other.onnx", "independent", 0.0, 1.0),
        )
    ]


def victim_rows(seeds: int) -> Rows:
    return [
        {
            "variant": variant,
            "bits": "w32a32" if variant == "float" else "w4a4",
            "seed": seed,
            "preset": "nasty" if variant == "divqat" else None,
            "accuracy": round(own + 0.002 * (seed - 1), 4),
            "ece": 0.031,
            "l1_to_reference": 0.0 if variant == "float" else 0.127,
            "flips_from_reference": 0.0 if variant == "float" else 0.013,
            "parameters": 12345,
        }
        for variant, own in TOP.items()
        for seed in range(seeds)
    ]


def layer_rows() -> Rows:
    names = ["input", "conv1", "conv2", "conv3", "linear"]
    return [
        {
            "name": name,
            "op": "Quant" if name == "input" else "Linear" if name == "linear" else "Conv",
            "weight_bits": None if name == "input" else 8 if name in ("conv1", "linear") else 4,
            "activation_bits": 8 if name == "input" else 4,
            "shapes": [[1, 8, 8], [8, 8, 8]],
            "parameters": 0 if name == "input" else 150 * 4**at,
            "macs": 0 if name == "input" else 9000 * (5 - at),
            "accumulator_bits": None if name == "input" else 13 + at,
        }
        for at, name in enumerate(names)
    ]


def build(
    run: Path, seeds: int = 1, finn: bool = True, divqat_drop: float = 0.0, attacked: bool = True
) -> Path:
    """Write a run directory: seeds, with or without FINN, and how much DivQAT protects."""
    versions = {"torch": "2.13.0", "divqat": "0.1.0"}
    done = {"status": "done", "inputs": {}, "outputs": {}, "versions": versions, "seconds": 1.5}
    reason = "finn-plus is not installed; install it with `pip install '.[finn]'`"
    stages = {name: dict(done) for name in ("train", "export", "compile", "simulate", "attack")}
    if not finn:
        stages["compile"] |= {"status": "missing-tool", "reason": reason}
    put(run / "config.toml", CONFIG)
    put(run / "manifest.json", {"schema": 1, "stages": stages})
    dataset = {"name": "digits", "train": 1200, "test": 360, "classes": 10, "shape": [1, 8, 8]}
    put(run / "train/dataset.json", dataset)
    put(run / "train/victims.json", victim_rows(seeds))
    metrics = [
        {
            "variant": variant,
            "seed": seed,
            "epoch": epoch,
            "loss": 2.3 * 0.7**epoch + 0.05 * seed,
            "val_accuracy": own - 0.8 * 0.6**epoch,
        }
        for variant, own in TOP.items()
        if variant != "ptq"
        for seed in range(seeds)
        for epoch in range(1, 11)
    ]
    put(run / "train/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))
    for variant in ("ptq", "qat", "divqat"):
        put(run / f"export/network_{variant}.json", layer_rows())
    engines = ["torch", "qonnx", "integer", *(["finn streamline"] if finn else [])]
    put(
        run / "simulate/equivalence.json",
        [
            {
                "variant": variant,
                "a": a,
                "b": b,
                "inputs": 1000,
                "mismatches": 0,
                "unit": "labels" if a == "torch" else "accumulators",
            }
            for variant in ("ptq", "qat", "divqat")
            for a, b in pairwise(engines)
        ],
    )
    put(
        run / "simulate/accuracy.json",
        {
            variant: {"accuracy_engine": TOP[variant] - 0.0011, "engine": "integer", "seed": 0}
            for variant in ("ptq", "qat", "divqat")
        },
    )
    for index, row in enumerate(attack_rows(seeds, divqat_drop) if attacked else []):
        put(run / f"attack/{index:04d}.json", row)
    if attacked:
        put(run / "attack/detection/divqat.json", detection_rows())
        put(run / "attack/ownership/suspects.json", ownership_rows())
    for variant in ("qat", "divqat") if finn else ():
        put(
            run / f"compile/{variant}/hardware.json",
            [
                {
                    "variant": variant,
                    "device": "xc7z020clg400-1",
                    "stage": "estimate",
                    "lut": 8123,
                    "ff": None,
                    "bram": 12.5,
                    "dsp": 0,
                    "fmax_mhz": None,
                    "cycles_per_image": 1311,
                    "images_per_s": 76277.6,
                    "bitstream_bytes": None,
                    "tool": "finn-plus 1.6.1",
                }
            ],
        )
        put(
            run / f"compile/{variant}/estimates.json",
            [
                {"name": f"MVAU_rtl_{i}", "cycles": 576 + i, "lut": 900 * i + 300, "bram": i}
                | {"dsp": 0, "pe": 4, "simd": 9}
                for i in range(4)
            ],
        )
    return run


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def put_evidence(run: Path, who: tuple[str, ...] = ("qat", "divqat")) -> None:
    """What the report stage asks the victims, and clones' confusion in the last one's attacks."""
    sure, unsure = [0.9] + [0.1 / 9] * 9, [0.1] * 10
    answers = [
        {"who": name, "probabilities": p} for name, p in zip(who, (sure, unsure), strict=True)
    ]
    diagonal = [[30 if i == j else int(i == 0 and j == 1) for j in range(10)] for i in range(10)]
    put(
        run / "report/evidence.json",
        {
            "confusions": [
                {"kind": "victim", "victim": name, "seed": 0, "what": "first 301 test images"}
                | {"counts": diagonal}
                for name in who
            ],
            "examples": [
                {"source": "test image 1", "label": "3", "png": PIXEL, "answers": answers},
                {"source": "the attacker's image 1 of letters", "label": None, "png": PIXEL}
                | {"answers": answers},
            ],
        },
    )
    lost = [[10 if j == 4 else 0 for j in range(10)] for _ in range(10)]
    for path in run.glob("attack/*.json"):
        row = json.loads(path.read_text(encoding="utf-8"))
        if row["victim"] == who[-1]:
            put(path, row | {"confusion": lost})


def put_bitstream(run: Path, variant: str = "qat") -> None:
    """A placed design of two layers and an interface."""
    (estimate,) = json.loads((run / f"compile/{variant}/hardware.json").read_text())
    built = {"stage": "bitstream", "device": "LFE5U-85F-6CABGA381", "clock_mhz": 50}
    shares = {"utilisation": {"lut": 0.125, "ff": 0.02, "bram": 0.5, "dsp": 0.0}}
    put(run / f"compile/{variant}/hardware.json", [estimate, estimate | built | shares])
    cells = {"lut": 600, "ff": 20, "bram": 3, "lutram": 1, "dsp": 0}
    layers = [{"name": name, "cells": cells} for name in ("MVAU_0", "MVAU_0_fifo", "(interface)")]
    folder = run / f"compile/{variant}/bitstream"
    put(folder / "report.json", {"layers": layers, "part": "LFE5U-85F-6CABGA381"})
    placed = {
        "core.MVAU_0.acc": "X5/Y9/SLICEA.LUT0",
        "core.MVAU_0.acc2": "X5/Y9/SLICEA.LUT1",
        "core.MVAU_0_fifo.full": "X6/Y9/SLICEA.LUT1",
        "uart": "X1/Y2/SLICEB.FF0",
        "unplaced": "",
    }
    found = {name: {"attributes": {"NEXTPNR_BEL": bel}} for name, bel in placed.items()}
    put(folder / "routed.json", {"modules": {"top": {"cells": found}}})
