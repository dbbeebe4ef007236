"""Suite ``training``: a step of training in float, with Brevitas' quantizers and with ours.

The step is the trainer's own, augmentation and update included, on a CIFAR-sized batch; the two
presets of the loss add the frozen reference's pass or the synthetic outliers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fpga_flow.bench.extraction.markdown import table
from fpga_flow.bench.speed.suite import Context, Line, Record, Section
from fpga_flow.bench.speed.timing import interleaved, ratio, shown_ratio, shown_seconds

_WARMUP = 2
# How the contestants are called where they are shown.
_SHOWN = {
    "float": "float",
    "stock": "QAT, Brevitas' quantizers",
    "ours": "QAT, ours",
    "nasty": "DivQAT `nasty`, reference's pass included",
    "decoy": "DivQAT `decoy`, outliers included",
}


def measure(context: Context) -> Record:
    """Time the contestants' steps, and list the operators that take most of them."""
    import torch

    from fpga_flow.bench.speed.contestants import contestants
    from fpga_flow.bench.speed.profile import operators

    torch.set_num_threads(context.threads)
    models, size = (("cifar-cnn",), 8) if context.quick else (("vgg-tiny", "cifar-cnn"), 128)
    rows = []
    for model in models:
        for precision in ("float32", "bfloat16"):
            context.log(f"speed: training: {model} in {precision}")
            found = contestants(model, precision, size)
            calls = {name: contestant.step for name, contestant in found.items()}
            times = interleaved(calls, context.rounds, warmup=_WARMUP)
            rows.append(
                {
                    "model": model,
                    "precision": precision,
                    "batch": size,
                    "seconds": {name: spread.record() for name, spread in times.items()},
                    "to_float": _ratios(times, "float"),
                    "to_stock": _ratios(times, "stock"),
                    "operators": {name: operators(call) for name, call in calls.items()},
                }
            )
    return {"bits": "w4a4", "steps": rows}


def _ratios(times: Mapping[str, Any], beside: str) -> dict[str, Any]:
    return {
        name: ratio(spread, times[beside]).record()
        for name, spread in times.items()
        if name != beside
    }


def section(record: Record) -> Section:
    """Tables of the steps and their operators."""
    rows = record["steps"]
    lines = [
        f"One step of the trainer at {record['bits']}: augmentation, forward and backward pass, "
        "clipping, update. Brevitas' quantizers run in the same trainer as ours.",
        "",
        *table(
            ("Network", "Training", "Step", "to float", "to Brevitas' QAT"),
            [cells for row in rows for cells in _step_cells(row)],
        ),
        "Operators that take most of a step (self time, torch.profiler, one step):",
        "",
        *table(
            ("Network", "Training", "Operators"),
            [cells for row in rows for cells in _operator_cells(row)],
        ),
    ]
    return Section("Training", lines, [line for row in rows for line in _summary(row)])


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['model']}, {row['precision']}, batch {row['batch']}"


def _step_cells(row: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    return [
        (
            _name(row),
            _SHOWN[name],
            shown_seconds(seconds),
            _or_dash(row["to_float"].get(name)),
            _or_dash(row["to_stock"].get(name)),
        )
        for name, seconds in row["seconds"].items()
    ]


def _or_dash(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else shown_ratio(found)


def _operator_cells(row: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    return [
        (
            _name(row),
            _SHOWN[name],
            ", ".join(f"`{one['name']}` {one['share']:.0%}" for one in found[:5]),
        )
        for name, found in row["operators"].items()
    ]


def _summary(row: Mapping[str, Any]) -> Sequence[Line]:
    what = f"Training step, {_name(row)}"
    return [
        Line(
            what,
            _SHOWN["ours"],
            shown_ratio(row["to_float"]["ours"]),
            f"float (Brevitas' quantizers: {row['to_float']['stock']['median']:.2f}x)",
        ),
        *(
            Line(what, _SHOWN[name], shown_ratio(row["to_stock"][name]), _SHOWN["stock"])
            for name in ("nasty", "decoy")
        ),
    ]
