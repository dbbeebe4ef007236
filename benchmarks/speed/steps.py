"""Suite ``steps``: what each optimisation gave, with the profile before and after it.

Each is put back to how it was (:mod:`benchmarks.speed.ladders`), and what it computes is
compared with what is computed without it before anything is timed.
"""

import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from benchmarks.pages import table
from benchmarks.speed.suite import Context, Line, Record, Section
from benchmarks.speed.timing import interleaved, ratio, shown_ratio, shown_seconds
from divqat_brevitas.errors import CheckFailedError
from fpga_flow.report.text import counted

if TYPE_CHECKING:
    from benchmarks.speed.ladders import Rung

_BATCH, _IMAGES, _EPOCH = 128, 256, 512
_SURROGATE = "vgg-small"
_SHOWN_OPERATORS = 4


def measure(context: Context) -> Record:
    """Time the rungs of every ladder in turns, and list the operators that take most of each.

    On one thread the processor's time is measured as well.
    """
    import numpy as np
    import torch

    from benchmarks.speed import ladders
    from benchmarks.speed.exported import BITS, exported
    from fpga_flow.lowering import lower

    torch.set_num_threads(context.threads)
    trained, size = (("cifar-cnn",), 4) if context.quick else (("vgg-tiny", "cifar-cnn"), _BATCH)
    run, images = (("digits-cnn",), 8) if context.quick else (("cifar-cnn", "digits-cnn"), _IMAGES)
    surrogate, shape, epoch = _SURROGATE, (3, 32, 32), _EPOCH
    if context.quick:
        surrogate, shape, epoch = "mlp", (1, 8, 8), 32
    found = []
    for model in trained:
        rungs = ladders.training(model, size)
        found.append(_ladder(f"Training step, {model}, batch {size}", rungs, context))
    with tempfile.TemporaryDirectory(prefix="divqat-speed-") as folder:
        for model in run:
            network = lower(exported(model, Path(folder)).qonnx)
            pixels = np.random.default_rng(0).random((images, *network.input_shape), np.float32)
            rungs = ladders.integers(network, pixels)
            found.append(_ladder(f"Integer engine, {model}, batch {images}", rungs, context))
    for loop, rungs in ladders.clones(surrogate, shape, epoch).items():
        title = f"Clone's training, {surrogate}, {loop}, {epoch} images"
        found.append(_ladder(title, rungs, context))
    return {"bits": BITS, "ladders": found}


def _ladder(title: str, rungs: "Sequence[Rung]", context: Context) -> Record:
    from benchmarks.speed.profile import operators

    context.log(f"speed: steps: {title}")
    same = check(title, rungs)
    calls = {rung.name: rung.call for rung in rungs}
    names = list(calls)
    times = interleaved(calls, context.rounds)
    busy = interleaved(calls, context.rounds, warmup=0, clock=process_time)
    profiles = 1 if context.quick else 5
    return {
        "title": title,
        "rungs": [
            {
                "name": name,
                "seconds": times[name].record(),
                "cpu_seconds": busy[name].record(),
                "operators": operators(calls[name], calls=profiles),
            }
            for name in names
        ],
        "steps": [
            {
                "name": after,
                "before_to_after": ratio(times[before], times[after]).record(),
                "cpu_before_to_after": ratio(busy[before], busy[after]).record(),
                "results": same[after],
            }
            for before, after in pairwise(names)
        ],
        "all": ratio(times[names[0]], times[names[-1]]).record(),
        "cpu_all": ratio(busy[names[0]], busy[names[-1]]).record(),
    }


def check(title: str, rungs: "Sequence[Rung]") -> dict[str, Record]:
    """Whether each rung computes what the one before does, by its name.

    Returns:
        ``{"equal", "unlike", "apart"}`` each: whether every bit is the same, what is not, and how
        far the first result is away, as a part of its norm.

    Raises:
        CheckFailedError: a result differs where none should, or farther than it may.
    """
    import torch

    results = [rung.results() for rung in rungs]
    found: dict[str, Record] = {}
    for rung, (before, after) in zip(rungs[1:], pairwise(results), strict=True):
        equal = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        apart = float((before[0] - after[0]).double().norm() / before[0].double().norm())
        if not (equal or (rung.unlike and apart <= rung.apart)):
            raise CheckFailedError(
                f"{title}: results with {rung.name!r} are not those without it (first result: "
                f"{apart:.2g} of its norm apart, {rung.apart:g} is allowed). No speed is measured."
            )
        found[rung.name] = {"equal": equal, "unlike": rung.unlike, "apart": apart}
    return found


def section(record: Record) -> Section:
    """A table of steps a ladder, and of operators before and after each."""
    lines = [
        "Optimisations put back to how things were, then taken one after the other: each line has "
        "what the lines above it have. Time and ratio are of what is left after the step and how "
        "many times as long it took before. Results are compared before anything is timed: "
        "logits and gradients of the weights after one step, all last integers, the clone's "
        "weights; in brackets how far the first of these is away, as a part of its norm. "
        f"Quantizers are at {record['bits']}. A step whose quartiles lie on both sides of 1 gave "
        "nothing here that can be told from noise; what is not kept, and images as bytes, are for "
        "the sake of memory.",
        "",
    ]
    for ladder in record["ladders"]:
        lines += [f"### {ladder['title']}", "", *_tables(ladder)]
    lines += [
        "Not here, because they cannot be put back alone: the layout of the integer engine (bytes "
        "and channels last throughout), its checks of every kernel, the streamed transfer set and "
        "answers on disk.",
    ]
    return Section("Steps", lines, [_summary(ladder) for ladder in record["ladders"]])


def _tables(ladder: Mapping[str, Any]) -> Sequence[str]:
    first, *rest = ladder["rungs"]
    cells = [(f"{first['name']}", shown_seconds(first["seconds"]), "–", "–", "–")]
    for rung, step in zip(rest, ladder["steps"], strict=True):
        cells.append(
            (
                f"+ {rung['name']}",
                shown_seconds(rung["seconds"]),
                shown_ratio(step["before_to_after"]),
                shown_ratio(step["cpu_before_to_after"]),
                _shown_results(step["results"]),
            )
        )
    cells.append(("all steps", "", shown_ratio(ladder["all"]), shown_ratio(ladder["cpu_all"]), ""))
    head = ("Step", "Time", "before to after", "in processor time", "Results as before")
    profile = [
        (
            name,
            ", ".join(
                f"`{one['name']}` {one['seconds'] * 1e3:.3g} ms"
                for one in rung["operators"][:_SHOWN_OPERATORS]
            ),
        )
        for name, rung in zip((row[0] for row in cells), ladder["rungs"], strict=False)
    ]
    return [
        *table(head, cells),
        *table(("Step", "Operators that take most of it, own time"), profile),
    ]


def _shown_results(results: Mapping[str, Any]) -> str:
    if results["equal"]:
        return "every bit"
    return f"close ({results['apart']:.1%}): {results['unlike']}"


def _summary(ladder: Mapping[str, Any]) -> Line:
    rungs = ladder["rungs"]
    return Line(
        f"{ladder['title']}: time before to after {counted(len(rungs) - 1, 'step')}",
        f"down to: {rungs[-1]['name']}",
        shown_ratio(ladder["all"]),
        rungs[0]["name"],
    )
