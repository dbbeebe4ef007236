"""Suite ``training``: a step of training in float, with Brevitas' quantizers and with ours.

The step is the trainer's own, augmentation and update included, on a CIFAR-sized batch; the two
presets of the loss add the frozen reference's pass or the synthetic outliers.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

from benchmarks.pages import table
from benchmarks.speed.suite import Context, Line, Record, Section
from benchmarks.speed.timing import interleaved, ratio, shown_ratio, shown_seconds

_WARMUP, _OPERATORS = 2, 12
# How the contestants are called where they are shown.
_SHOWN = {
    "float": "float",
    "stock": "QAT, Brevitas' quantizers",
    "ours": "QAT, ours",
    "nasty": "DivQAT `nasty`, reference's pass included",
    "decoy": "DivQAT `decoy`, outliers included",
}


def measure(context: Context) -> Record:
    """Time the contestants' steps, list the operators that take most of them, weigh their memory.

    On one thread the processor's time of this process is measured as well: where others wait for
    the same cores it says more than the time that passed.
    """
    import torch

    from benchmarks.speed.contestants import NAMES, contestants
    from benchmarks.speed.memory import memory

    torch.set_num_threads(context.threads)
    models, size = (("cifar-cnn",), 8) if context.quick else (("vgg-tiny", "cifar-cnn"), 128)
    weighed, profiles = (("float",), 1) if context.quick else (NAMES, 5)
    rows = []
    for model in models:
        for precision in ("float32", "bfloat16"):
            context.log(f"speed: training: {model} in {precision}")
            found = contestants(model, precision, size)
            calls = {name: contestant.step for name, contestant in found.items()}
            times = interleaved(calls, context.rounds, warmup=_WARMUP)
            busy = interleaved(calls, context.rounds, warmup=0, clock=process_time)
            needs = {
                name: memory(name, model, precision, size, context.threads) for name in weighed
            }
            rows.append(
                {
                    "model": model,
                    "precision": precision,
                    "batch": size,
                    "seconds": {name: spread.record() for name, spread in times.items()},
                    "to_float": _ratios(times, "float"),
                    "to_stock": _ratios(times, "stock"),
                    "cpu_seconds": {name: spread.record() for name, spread in busy.items()},
                    "cpu_to_float": _ratios(busy, "float"),
                    "cpu_to_stock": _ratios(busy, "stock"),
                    "memory": needs,
                    "operators": {
                        name: operators(call, calls=profiles) for name, call in calls.items()
                    },
                }
            )
    return {"bits": "w4a4", "steps": rows}


def operators(
    call: Callable[[], object], top: int = _OPERATORS, calls: int = 1
) -> list[dict[str, Any]]:
    """The operators that take most of one call, by the time spent in themselves.

    Args:
        call: run under ``torch.profiler``, on the CPU.
        top: how many operators.
        calls: how often it is run; of each operator the quickest counts, since a profile is of
            time that passed, and other processes take theirs.

    Returns:
        ``{"name", "calls", "seconds", "share"}`` each, the longest first; shares are of all
        operators' time.

    Example:
        >>> import torch
        >>> a = torch.rand(200, 200)
        >>> operators(lambda: a @ a)[0]["name"]
        'aten::mm'
    """
    # Read at the profiler's first start: else each start and stop is a line on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity, profile

    quickest: dict[str, tuple[float, int]] = {}
    for _ in range(calls):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            call()
        for event in profiler.key_averages():
            found = event.self_cpu_time_total / 1e6, event.count
            quickest[event.key] = min(found, quickest.get(event.key, found))
    total = sum(seconds for seconds, _ in quickest.values()) or 1.0
    longest = sorted(quickest, key=lambda name: quickest[name], reverse=True)[:top]
    return [
        {
            "name": name,
            "calls": quickest[name][1],
            "seconds": quickest[name][0],
            "share": quickest[name][0] / total,
        }
        for name in longest
    ]


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
        "The same in processor time, which other processes touch less, and the steps' memory: the "
        "most that was resident in a process that trains, less what was before the first step.",
        "",
        *table(
            ("Network", "Training", "to float", "to Brevitas' QAT", "Memory", "to float"),
            [cells for row in rows for cells in _need_cells(row)],
        ),
        "Operators that take most of a step (own time, torch.profiler, the quickest of a few):",
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


def _need_cells(row: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    return [
        (
            _name(row),
            _SHOWN[name],
            _or_dash(row["cpu_to_float"].get(name)),
            _or_dash(row["cpu_to_stock"].get(name)),
            *_memory_cells(row["memory"].get(name), row["memory"]["float"]),
        )
        for name in row["seconds"]
    ]


def _memory_cells(
    found: Mapping[str, int] | None, beside: Mapping[str, int] | None
) -> tuple[str, str]:
    if found is None or beside is None:
        return "–", "–"
    return f"{found['steps'] / 2**20:.0f} MiB", f"{found['steps'] / beside['steps']:.2f}x"


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
    what = f"Time of a training step, {_name(row)}"
    memory = row["memory"]
    needs = [_memory_cells(memory.get(name), memory["float"])[1] for name in ("ours", "stock")]
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
        Line(
            what.replace("Time", "Memory"),
            _SHOWN["ours"],
            needs[0],
            f"float (Brevitas' quantizers: {needs[1]})",
        ),
    ]
