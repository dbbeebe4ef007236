"""Suite ``own-loop``: a step in a user's own loop, in float, with Brevitas' quantizers and ours.

No trainer of this package takes part: the network is called, the loss goes backward, an optimizer
steps. The first steps, in which scales still come from statistics, are measured apart from those
after a calibration.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.pages import table
from benchmarks.speed.contestants import CLASSES, networks
from benchmarks.speed.suite import Context, Line, Record, Section
from benchmarks.speed.timing import interleaved, ratio, shown_ratio
from divqat_brevitas.training.kernels import PRECISIONS, channels_last

_SHAPES = {"lenet5": (1, 28, 28), "cifar-cnn": (3, 32, 32), "resnet-8": (3, 32, 32)}
_LAYOUTS = ("channels first", "channels last")
_PHASES = ("calibrated", "first steps")


def measure(context: Context) -> Record:
    """Time the contestants' steps, in processor time: a shared machine's users wait for cores."""
    models, size = (("lenet5",), 8) if context.quick else (tuple(_SHAPES), 128)
    before = torch.get_num_threads()
    rows = []
    try:
        for model in models:
            for precision in PRECISIONS:
                for layout in _LAYOUTS:
                    for threads in sorted({1, 2} if not context.quick else {1}):
                        for phase in _PHASES:
                            torch.set_num_threads(threads)
                            context.log(
                                f"speed: own-loop: {model}, {precision}, {layout}, "
                                f"{threads} thread(s), {phase}"
                            )
                            steps = _steps(model, precision, layout, phase, size)
                            times = interleaved(steps, context.rounds, warmup=2, clock=process_time)
                            rows.append(
                                {
                                    "model": model,
                                    "precision": precision,
                                    "layout": layout,
                                    "threads": threads,
                                    "phase": phase,
                                    "batch": size,
                                    "cpu_seconds": {n: t.record() for n, t in times.items()},
                                    "least": {n: min(t.samples) for n, t in times.items()},
                                    "to_float": {
                                        n: ratio(times[n], times["float"]).record()
                                        for n in ("stock", "ours")
                                    },
                                }
                            )
    finally:
        torch.set_num_threads(before)
    return {"bits": "w4a4", "steps": rows}


def _steps(
    model: str, precision: str, layout: str, phase: str, size: int
) -> Mapping[str, Callable[[], None]]:
    """A step of each contestant, on noise."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, *_SHAPES[model])
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (size,), generator=generator)
    found = networks(model, images, calibrated=phase == "calibrated")
    x = images / 255
    if layout == "channels last":
        x = channels_last(x)
        for network in found.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {name: _step(network, x, labels, precision) for name, network in found.items()}


def _step(network: nn.Module, x: Tensor, labels: Tensor, precision: str) -> Callable[[], None]:
    optimizer = torch.optim.SGD(network.train().parameters(), lr=1e-4, momentum=0.9)
    half = precision == "bfloat16"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            logits = network(x)
        torch.autograd.backward(cross_entropy(logits.float(), labels))
        optimizer.step()

    return step


def section(record: Record) -> Section:
    """A table of the steps."""
    rows = record["steps"]
    lines = [
        f"One step at {record['bits']} of a loop that a user writes: forward and backward pass, "
        "SGD with momentum. Processor time to float's, and in brackets that of the quickest steps. "
        "`calibrate` was called before the first step, or the scales still come from statistics.",
        "",
        *table(
            ("Network", "Layout", "Threads", "Steps", "Ours", "Brevitas' quantizers"),
            [
                (
                    f"{row['model']}, {row['precision']}, batch {row['batch']}",
                    row["layout"],
                    str(row["threads"]),
                    row["phase"],
                    *(
                        f"{shown_ratio(row['to_float'][name])} [{_least(row, name):.2f}x]"
                        for name in ("ours", "stock")
                    ),
                )
                for row in rows
            ],
        ),
    ]
    return Section("A loop of one's own", lines, [_summary(rows, phase) for phase in _PHASES])


def _least(row: Mapping[str, Any], name: str) -> float:
    least: Mapping[str, float] = row["least"]
    return least[name] / least["float"]


def _summary(rows: list[dict[str, Any]], phase: str) -> Line:
    ratios = {
        name: [row["to_float"][name]["median"] for row in rows if row["phase"] == phase]
        for name in ("ours", "stock")
    }
    ours, stock = (f"{min(one):.2f}x to {max(one):.2f}x" for one in ratios.values())
    return Line(
        f"Time of a step in a loop of one's own, {phase}, all networks and layouts",
        "QAT, ours",
        ours,
        f"float (Brevitas' quantizers: {stock})",
    )
