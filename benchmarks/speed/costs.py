"""Suite ``costs``: how each stage's time and peak memory grow with images, parameters and bits.

One network of two convolutions is made wider and narrower; a stage's sizes take turns in a process
of its own. The growth is the exponent of a power law, fitted to logarithms. ResNet-8 and ResNet-20
are measured beside it, once a size, up to 60,000 images.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import child_environment
from benchmarks.pages import table
from benchmarks.speed.cost_work import CLASSES, CONVOLUTIONS, OUTSIDE, SHAPE, Size
from benchmarks.speed.power_law import fit
from benchmarks.speed.suite import Context, Line, Record, Section
from divqat_brevitas.errors import CheckFailedError
from fpga_flow.report.charts import COLOURS, MARKERS, Chart

BASE = Size(images=64, width=16, bits=4)
AXES = ("images", "parameters", "bits")
NETWORKS = ("resnet-8", "resnet-20")
_IMAGES = (16, 64, 256, 1024, 4096, 16_384, 60_000)
# The widest has as many parameters as ResNet-20.
_WIDTHS, _BITS = (8, 16, 32, 64, 112), (2, 3, 4, 8)


@dataclass(frozen=True)
class Stage:
    """What is varied of a stage, and how often it is timed at most.

    Attributes:
        shown: the stage in words.
        images: of the two convolutions.
        widths: of the two convolutions.
        bits: of the two convolutions.
        rounds: timed calls at most.
        whole: images of a whole network; work on the first number is done once before.
    """

    shown: str
    images: tuple[int, ...]
    widths: tuple[int, ...] = _WIDTHS
    bits: tuple[int, ...] = _BITS
    rounds: int = 15
    whole: tuple[int, ...] = (64,)


STAGES = {
    "train": Stage("training, a QAT epoch", _IMAGES, rounds=5, whole=(256, 60_000)),
    "export": Stage("export and parity gate", _IMAGES[:-1], rounds=3, whole=(64, 1024)),
    "lower": Stage("lowering to integers", ()),
    "engine": Stage("integer engine", _IMAGES, whole=(256, 60_000)),
    "compile": Stage("FINN build", (), rounds=2),
    "simulate": Stage("RTL simulation", (16, 256, 4096), (8, 16, 32), (), rounds=2, whole=(4,)),
    "attack": Stage("attack, a clone's epoch", _IMAGES, bits=(), rounds=5, whole=(256, 60_000)),
}
_QUICK = Stage("", (8, 16, 32), (), ())


def measure(context: Context) -> Record:
    """Run every stage at its sizes, and fit the growth."""
    from fpga_flow.compile.worker_process import finn_installed

    rows: list[dict[str, Any]] = []
    not_run: dict[str, str] = {}
    for name, full in STAGES.items():
        if name in OUTSIDE and (context.quick or not finn_installed()):
            not_run[full.shown] = "quick" if context.quick else "finn-plus is not installed"
            continue
        stage = _QUICK if context.quick else full
        base = dataclasses.replace(BASE, width=4) if context.quick else BASE
        points = sizes(stage, base)
        context.log(f"speed: costs: {full.shown}, {len(points)} sizes")
        # The peak is that of a process that ended: one size a process tells whose it is.
        jobs = [[point] for point in points] if name in OUTSIDE else [points]
        rounds = min(context.rounds, stage.rounds if context.quick else full.rounds)
        for job in jobs:
            rows += _rows(name, job, rounds, context.threads)
    for network in () if context.quick else NETWORKS:
        for name, stage in STAGES.items():
            if stage.shown in not_run:
                continue
            context.log(f"speed: costs: {network}, {stage.shown}")
            job = [([], Size(images, 0, BASE.bits, network)) for images in stage.whole]
            try:
                rows += _rows(name, job, 0, context.threads)
            except CheckFailedError as e:  # hours of measurements do not hang on one network
                not_run[f"{network}, {stage.shown}"] = str(e)
    return {
        "network": f"two 3x3 convolutions of WIDTH and 2 WIDTH channels and a linear layer, on "
        f"{'x'.join(map(str, SHAPE))} images and {CLASSES} classes",
        "base": dataclasses.asdict(BASE),
        "rows": rows,
        "fits": fits(rows),
        "not_run": not_run,
    }


def _rows(
    stage: str, points: Sequence[tuple[list[str], Size]], rounds: int, threads: int
) -> list[dict[str, Any]]:
    """Measure a stage's sizes in one process; a row a size."""
    found = _child(stage, [size for _, size in points], rounds, threads)
    return [
        {"stage": stage, "axes": axes, **dataclasses.asdict(size), **sample}
        for (axes, size), sample in zip(points, found, strict=True)
    ]


def sizes(stage: Stage, base: Size) -> list[tuple[list[str], Size]]:
    """The sizes of a stage, each with the axes that it lies on; the base may lie on all."""
    found: dict[Size, list[str]] = {}
    for axis, key, values in (
        ("images", "images", stage.images),
        ("parameters", "width", stage.widths),
        ("bits", "bits", stage.bits),
    ):
        for value in values:
            changed: dict[str, Any] = {key: value}
            found.setdefault(dataclasses.replace(base, **changed), []).append(axis)
    return [(axes, size) for size, axes in found.items()]


def fits(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The growth of every stage's time (medians) and memory along every axis.

    Returns:
        Rows of "stage", "axis", "cost" ("seconds" or "memory"), "range" (of sizes) and the fields
        of `PowerLaw`; none where there are too few sizes or no memory was told.
    """
    found = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        for axis in AXES:
            there = [row for row in rows if row["stage"] == stage and axis in row["axes"]]
            for cost in ("seconds", "memory"):
                values = [_value(row, cost) for row in there]
                if len(there) < 3 or any(value is None for value in values):
                    continue
                law = fit([row[axis] for row in there], [v for v in values if v is not None])
                if law is not None:
                    span = [min(row[axis] for row in there), max(row[axis] for row in there)]
                    where = {"stage": stage, "axis": axis, "cost": cost, "range": span}
                    found.append(where | law.record())
    return found


def _value(row: Mapping[str, Any], cost: str) -> float | None:
    if cost == "seconds":
        return float(median(row["seconds"]))
    return None if row["memory"] is None else float(row["memory"])


def _child(stage: str, points: Sequence[Size], rounds: int, threads: int) -> list[dict[str, Any]]:
    job = {
        "stage": stage,
        "sizes": [dataclasses.asdict(size) for size in points],
        "rounds": rounds,
        "threads": threads,
    }
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.cost_work"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env=child_environment() | {"OMP_NUM_THREADS": str(threads)},
    )
    if process.returncode != 0:
        last = "\n".join(process.stderr.splitlines()[-5:])
        raise CheckFailedError(f"the process that measures {stage} failed:\n{last}")
    found: list[dict[str, Any]] = json.loads(process.stdout)
    return found


def section(record: Record) -> Section:
    """The exponents as a table, and the curves."""
    found = {(row["stage"], row["axis"], row["cost"]): row for row in record["fits"]}
    stages = list(dict.fromkeys(row["stage"] for row in record["rows"]))
    head = [f"{cost} by {axis}" for cost in ("time", "memory") for axis in AXES]
    cells = [
        (STAGES[stage].shown, *(_law(found.get((stage, axis, cost))) for cost in
                                ("seconds", "memory") for axis in AXES))
        for stage in stages
    ]  # fmt: skip
    lines = [
        f"Exponents of power laws (1: proportional, 0: does not grow) with 95 % intervals, about "
        f"{record['network']}; base {_named(record['base'])}. Bits span a factor of four, not a "
        "decade. Time: median. Memory: how far the process grows at most, of the FINN build and "
        "the RTL simulation the whole peak of the largest process that they start (FINN, "
        "Verilator or the C++ compiler). A fixed cost bends the line: the exponent is then a mean "
        "over the range, and no promise beyond it.",
        "",
        *table(("Stage", *head), cells),
        "",
    ]
    if whole := _whole(record):
        lines += [
            "Whole networks on 3x32x32 images, one call a size:",
            "",
            *table(("Network", "Parameters", "Stage", "Images", "Time", "Memory"), whole),
            "",
        ]
    lines += [f"- Not run: {what}: {why}." for what, why in record["not_run"].items()]
    summary = [
        Line("Growth of time", STAGES[stage].shown, _law(law), f"exponent over {axis}")
        for (stage, axis, cost), law in found.items()
        if cost == "seconds" and axis != "bits"
    ]
    lines += ["", "`divqat bench speed --publish` draws the curves as `costs.svg`."]
    return Section("How costs grow", lines, summary)


def _whole(record: Record) -> list[Sequence[str]]:
    """The table of the whole networks."""
    rows: list[Sequence[str]] = []
    for row in record["rows"]:
        if row["network"] == CONVOLUTIONS:
            continue
        stage, memory = STAGES[row["stage"]], _value(row, "memory")
        images = f"{row['images']:,}" if stage.images else "–"
        time = f"{_value(row, 'seconds'):.3g} s"
        rest = "–" if memory is None else f"{memory / 1e6:,.0f} MB"
        rows.append((row["network"], f"{row['parameters']:,}", stage.shown, images, time, rest))
    return rows


def charts(record: Record) -> list[Chart]:
    """Time and memory along each axis, a line a stage, both axes logarithmic."""
    return [
        _chart(record, axis, cost)
        for cost in ("seconds", "memory")
        for axis in AXES
        if any(axis in row["axes"] and _value(row, cost) for row in record["rows"])
    ]


def _chart(record: Record, axis: str, cost: str) -> Chart:
    label = "seconds" if cost == "seconds" else "MB"
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for name in STAGES:
        there = [r for r in record["rows"] if r["stage"] == name and axis in r["axes"]]
        points = sorted((float(r[axis]), value) for r in there if (value := _value(r, cost)))
        if points:
            scale = 1.0 if cost == "seconds" else 1e6
            lines[name] = [x for x, _ in points], [y / scale for _, y in points]

    def draw(axes: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        for name, (x, y) in lines.items():
            number = list(STAGES).index(name)
            axes.plot(x, y, color=COLOURS[number], marker=MARKERS[number],
                      label=STAGES[name].shown)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        for scale in (axes.xaxis, axes.yaxis):
            # Plain numbers: powers of ten would be mathematical text, which is off.
            scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            scale.set_major_formatter(StrMethodFormatter("{x:g}"))
            scale.set_minor_formatter(NullFormatter())
        axes.set_xlabel(axis)
        axes.set_ylabel(label)
        axes.grid()
        axes.figure.legend(loc="outside lower left", ncols=2, fontsize=8.5)

    told = "; ".join(
        f"{STAGES[name].shown} from {y[0]:.2g} to {y[-1]:.2g}" for name, (_, y) in lines.items()
    )
    title = f"{'Time' if cost == 'seconds' else 'Peak memory'} by {axis}"
    return Chart(f"costs-{cost}-{axis}", title, f"In {label}: {told}.", draw, size=(5.2, 3.6))


def _law(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{found['exponent']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _named(base: Mapping[str, Any]) -> str:
    return ", ".join(f"{value} {name}" for name, value in base.items())
