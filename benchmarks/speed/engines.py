"""Suite ``engines``: images a second of everything that executes a network, on the same images.

Every contestant gets the batch size that suits it best of those tried. A large product of bytes
from the library that the integer engine uses (oneDNN through PyTorch) is timed in the same turns:
on a processor with instructions for it, that is the limit.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pages import table
from benchmarks.speed.suite import Context, Line, Record, Section
from benchmarks.speed.timing import Spread, interleaved, ratio, shown_ratio, shown_seconds
from divqat_brevitas.errors import CheckFailedError

if TYPE_CHECKING:
    from benchmarks.speed.exported import Exported
    from benchmarks.speed.racers import Images, Racer
    from fpga_flow.integer.engine import IntegerEngine

_BATCHES = (16, 64, 256)
_IMAGES = 256
_CHECKED = 16
_TURN = 0.02  # seconds: shorter calls find the caches that others left
_SIMULATED, _SIMULATED_ROUNDS = 16, 3  # images and rounds of simulations of hardware
_PRODUCT = 1024  # side of the matrices of bytes
_SHOWN = {
    "integer": "integer engine",
    "onnxruntime": "ONNX Runtime, float",
    "torch": "PyTorch, float",
    "brevitas": "Brevitas, eval",
    "qonnx": "`qonnx.execute_onnx`",
    "qonnx-alone": "`qonnx.execute_onnx`, one image at a time",
    "finn": "FINN's graph in Python",
    "finn-cpp": "FINN's C++ simulation",
    "rtl": "generated RTL in Verilator",
}


def measure(context: Context) -> Record:
    """Time the engines on three networks, in batches and one image at a time."""
    import torch

    from benchmarks.speed.exported import BITS, exported

    torch.set_num_threads(context.threads)
    names = ("digits-cnn",) if context.quick else ("cifar-cnn", "digits-cnn", "resnet-8")
    with tempfile.TemporaryDirectory(prefix="divqat-speed-") as folder:
        rows = [_network(exported(name, Path(folder)), context) for name in names]
    return {"bits": BITS, "networks": rows}


def _network(network: "Exported", context: Context) -> Record:
    import numpy as np

    from benchmarks.speed.racers import software
    from fpga_flow.integer.engine import IntegerEngine

    context.log(f"speed: engines: {network.name}")
    count = 16 if context.quick else _IMAGES
    images = np.random.default_rng(0).random((count, *network.shape), dtype=np.float32)
    engine = IntegerEngine(network.qonnx)
    racers, lacking = software(network, engine, context.threads)
    checked = _check(engine, racers, images[:_CHECKED])

    least = 0.0 if context.quick else _TURN
    sizes = {name: _best(racer, images) for name, racer in racers.items()}
    calls = {name: _batched(racer, images, sizes[name]) for name, racer in racers.items()}
    calls["qonnx-alone"] = _batched(racers["qonnx"], images[:1], 1)
    side = 64 if context.quick else _PRODUCT
    times = _turns(calls | {"product": _product(side)}, context.rounds, least)
    product = times.pop("product")
    operations = 2 * sum(row.macs for row in engine.network.describe())
    alone = {name: _batched(racer, images[:1], 1) for name, racer in racers.items()}
    alone_times = _turns(alone, context.rounds, least)
    record = {
        "model": network.name,
        "operations": operations,
        "kernels": engine.kernels,
        "checked": checked,
        "batch": sizes,
        "batched": _compared(times, dict.fromkeys(times, count) | {"qonnx-alone": 1}),
        "single": _compared(alone_times, dict.fromkeys(alone_times, 1)),
        "peak": _peak(times["integer"], operations * count, product, 2 * side**3),
    }
    simulated, missing = _simulations(network, engine, images[:_SIMULATED], context)
    return record | {"simulated": simulated, "not_run": lacking | missing}


def _check(engine: "IntegerEngine", racers: Mapping[str, "Racer"], images: "Images") -> Record:
    """Whether contestants compute the same, before anything is timed.

    Raises:
        CheckFailedError: they do not.
    """
    import numpy as np

    reference = engine.network.run(images)
    layers = engine.network.layers
    # One layer at a time: what is not asked for is computed as `predict` does.
    exact = all(
        np.array_equal(engine.integers(images, [one.name])[one.name], reference[one.output])
        for one in layers
    )
    found = {name: racer(images) for name, racer in racers.items()}
    labels = {
        name: bool((found[name].argmax(1) == found["integer"].argmax(1)).all())
        for name in ("brevitas", "qonnx")
    }
    # Float engines fold batch norms and sum in other orders.
    close = "onnxruntime" not in found or np.allclose(
        found["onnxruntime"], found["torch"], rtol=1e-3, atol=1e-3
    )
    if not (exact and all(labels.values()) and close):
        raise CheckFailedError(
            f"the engines disagree: integers equal to int64 arithmetic: {exact}; labels equal to "
            f"the integer engine's: {labels}; ONNX Runtime close to PyTorch: {close}. No speed "
            "is measured."
        )
    return {"images": len(images), "layers": len(layers), "labels": sorted(labels)}


def _best(racer: "Racer", images: "Images") -> int:
    """The batch size of ``_BATCHES`` that an engine is fastest with."""
    sizes = [size for size in _BATCHES if size <= len(images)]
    calls = {str(size): _batched(racer, images, size) for size in sizes}
    times = interleaved(calls, 2)
    return min(sizes, key=lambda size: min(times[str(size)].samples))


def _batched(racer: "Racer", images: "Images", size: int) -> Callable[[], object]:
    parts = [images[i : i + size] for i in range(0, len(images), size)]
    return lambda: [racer(part) for part in parts]


def _turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, least: float
) -> dict[str, Spread]:
    """Seconds of a call, in turns of at least ``least`` seconds: short calls are repeated."""
    once = interleaved(calls, 3)
    counts = {name: max(1, round(least / spread.median)) for name, spread in once.items()}

    def repeated(name: str) -> Callable[[], object]:
        return lambda: [calls[name]() for _ in range(counts[name])]

    times = interleaved({name: repeated(name) for name in calls}, rounds)
    return {
        name: Spread(tuple(s / counts[name] for s in spread.samples))
        for name, spread in times.items()
    }


def _product(side: int) -> Callable[[], object]:
    """Unsigned by signed bytes, summed in int32."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (side, side), generator=generator, dtype=torch.uint8)
    b = torch.randint(-128, 128, (side, side), generator=generator, dtype=torch.int8)
    return lambda: torch._int_mm(a, b)


def _peak(ours: Spread, operations: int, product: Spread, of_product: int) -> Record:
    """Operations a second, and the engine's share of the product's."""
    rates = zip(ours.samples, product.samples, strict=True)
    share = Spread(tuple((operations / a) / (of_product / b) for a, b in rates))
    return {
        "product": Spread(tuple(of_product / s for s in product.samples)).record(),
        "engine": Spread(tuple(operations / s for s in ours.samples)).record(),
        "share": share.record(),
    }


def _compared(times: Mapping[str, Spread], images: Mapping[str, int]) -> Record:
    """Seconds an image, and how many times the integer engine's."""
    seconds = {
        name: Spread(tuple(s / images[name] for s in spread.samples))
        for name, spread in times.items()
    }
    return {
        "seconds": {name: spread.record() for name, spread in seconds.items()},
        "to_integer": {
            name: ratio(spread, seconds["integer"]).record()
            for name, spread in seconds.items()
            if name != "integer"
        },
    }


def _simulations(
    network: "Exported", engine: "IntegerEngine", images: "Images", context: Context
) -> tuple[Record | None, dict[str, str]]:
    """Simulations of hardware beside the engine, on the small network."""
    from benchmarks.speed.racers import hardware

    names = ("finn", "finn-cpp", "rtl")
    if network.name != "digits-cnn":
        return None, dict.fromkeys(names, "run on digits-cnn alone: it takes minutes")
    if context.quick:
        return None, dict.fromkeys(names, "left out of a quick run: it is built first")
    context.log("speed: engines: building FINN's and Verilator's simulations")
    with hardware(network, context.threads) as (racers, lacking):
        expected = engine.predict(images).argmax(1)
        for name, racer in racers.items():
            if not (racer(images).argmax(1) == expected).all():
                raise CheckFailedError(f"{_SHOWN[name]} labels images otherwise than the engine.")
        calls = {
            name: _batched(racer, images, len(images))
            for name, racer in {"integer": engine.predict, **racers}.items()
        }
        times = interleaved(calls, min(context.rounds, _SIMULATED_ROUNDS))
    return _compared(times, dict.fromkeys(times, len(images))), lacking


def section(record: Record) -> Section:
    """Tables of rates, kernels, and what did not run."""
    lines = [
        f"Networks at {record['bits']} with random weights; float networks have the same layers. "
        "Every engine has the fastest batch size of those tried. Before anything is timed, every "
        "layer of the integer engine is compared with int64 arithmetic, and its labels with "
        "Brevitas and QONNX: all equal.",
        "",
    ]
    for row in record["networks"]:
        lines += [f"### {row['model']}", "", *_tables(row), ""]
    return Section(
        "Engines", lines[:-1], [line for row in record["networks"] for line in _summary(row)]
    )


def _tables(row: Mapping[str, Any]) -> Sequence[str]:
    parts = {"in batches": row["batched"], "one image at a time": row["single"]}
    if row["simulated"] is not None:
        parts["simulations of hardware"] = row["simulated"]
    lines: list[str] = []
    for title, part in parts.items():
        cells = [
            (
                _SHOWN[name],
                str(row["batch"].get(name, 1)) if title == "in batches" else "",
                shown_seconds(seconds),
                f"{1 / seconds['median']:,.0f}",
                "" if name == "integer" else shown_ratio(part["to_integer"][name]),
            )
            for name, seconds in part["seconds"].items()
        ]
        head = (title.capitalize(), "batch", "an image", "images/s", "time to the integer engine's")
        lines += table(head, cells)
    peak = row["peak"]
    kernels = ", ".join(f"{layer}: {kind}" for layer, kind in row["kernels"].items())
    lines += [
        f"The integer engine does {peak['engine']['median'] / 1e9:.0f} billion operations a "
        f"second (products and sums, {row['operations'] / 1e6:.1f} million an image): "
        f"{peak['share']['median']:.2g} times what a product of two byte matrices does in the same "
        f"turns ({peak['product']['median'] / 1e9:.2g} billion; slow without instructions for it).",
        "",
        f"Kernels: {kernels}.",
        "",
        *(f"- Not run: {_SHOWN[name]}: {reason}." for name, reason in row["not_run"].items()),
    ]
    return lines


def _summary(row: Mapping[str, Any]) -> Sequence[Line]:
    found = []
    for part, how in (("batched", "in batches"), ("single", "one image at a time")):
        ratios = row[part]["to_integer"]
        for name in ("onnxruntime", "qonnx", "qonnx-alone"):
            if name in ratios:
                what = f"Images a second, {row['model']}, {how}"
                found.append(Line(what, _SHOWN["integer"], shown_ratio(ratios[name]), _SHOWN[name]))
    return found
