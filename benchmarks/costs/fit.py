"""Fit the cost model's weights to the synthesised layers, and print its error.

    .venv/bin/python benchmarks/costs/fit.py

Reads fpga_flow/folding/layer_costs.json, writes fpga_flow/folding/cost_weights.json. Weights are
not negative, and fitted to relative errors, so that small layers count as much as large ones.
"""

import json
from collections import defaultdict
from typing import Any

import numpy as np
from scipy.optimize import nnls

from fpga_flow.folding.cost import MEASURED, WEIGHTS, block_count, family, measured, terms

_FLOOR = 30.0  # cells below which an error is not counted as relative any more


def main() -> None:
    """Fit, write and print."""
    families = defaultdict(list)
    for shape, folding, cells in measured():
        families[family(shape, folding)].append((shape, folding, cells))
    weights: dict[str, Any] = {}
    errors: dict[str, dict[str, Any]] = {}
    for name, rows in families.items():
        names = list(terms(rows[0][0], rows[0][1]))
        values = np.array([[terms(s, f)[n] for n in names] for s, f, _ in rows], dtype=float)
        weights[name], errors[name] = {}, {"layers": len(rows)}
        for cell in ("lut", "ff"):
            truth = np.array([getattr(c, cell) for _, _, c in rows], dtype=float)
            scale = np.maximum(truth, _FLOOR)
            found, _ = nnls(values / scale[:, None], truth / scale)
            weights[name][cell] = {n: round(float(w), 4) for n, w in zip(names, found, strict=True)}
            wrong = np.abs(values @ found - truth) / scale
            errors[name][cell] = {
                "mean": round(float(wrong.mean()), 3), "worst": round(float(wrong.max()), 3),
            }  # fmt: skip
        blocks = [(block_count(s, f), c.bram) for s, f, c in rows]
        errors[name]["bram"] = {"wrong": sum(a != b for a, b in blocks), "pairs": blocks}
    versions = json.loads(MEASURED.read_text())["versions"]
    for name, one in errors.items():
        print(name, one)
    for one in errors.values():
        del one["bram"]["pairs"]
    record = {"versions": versions, "errors": errors, "weights": weights}
    WEIGHTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
