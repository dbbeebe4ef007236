"""The hardware benchmark of finished runs: what was built, how large, how fast, how exact.

One record a run in ``designs.json``, and a page made from all of them. Accuracy, equivalence and
logic cells come from the run; cycles and simulation speed are measured here.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pages
from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, write_json, write_text
from fpga_flow.compile import FinnBuild
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.isolated_layers import measure_layers
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.report.collection import read as read_results
from fpga_flow.rtl import Design

FILE = "designs.json"
_INTRODUCTION = (
    "Trained networks, one seed. LUT, FF, block RAM and Fmax are nextpnr's after place and route, "
    "for an LFE5U-85F-6 where no other device is named; nothing ran on a board. Seconds are of a "
    "shared 2-core machine. Accuracy is of test data, on the integer engine. FINN's estimates "
    "of cycles are of FINN's modules: pools, and thresholds behind slow layers, are ours here."
)
# What others measured on boards: design, device, accuracy, images a second, and the source.
_ANCHORS = Path(__file__).parent / "anchors.json"
_BESIDE = (
    "Ours are routed designs at the clock of their own PLL, simulated; nothing ran on a board. The "
    "others ran on boards, one image after the other. MLPerf Tiny's accuracies are of 200 images, "
    "ours of 10,000. Their devices are of other families: a LUT6 does more than a LUT4."
)
_USUAL = "ecp5-85f"
# Cycles simulated to measure the speed: seconds to a minute, whatever the network.
_SIMULATED_CYCLES = 5_000_000
Record = dict[str, Any]


def measure(run_dir: Path, variant: str) -> Record:
    """One record of a finished run's variant.

    Args:
        run_dir: a run up to its report, whose compile stage made a bitstream.
        variant: such as ``qat``.

    Raises:
        InputError: the run has no report, or no such variant was built.
        ToolMissingError: Verilator is not installed.
    """
    results = read_results(run_dir / "report" / "results.json")
    built = run_dir / "compile" / variant
    build, design = FinnBuild.load(built), Design.load(built / "design")
    config = RunDirectory.existing(run_dir).config()
    rows = [row.model_dump() for row in results.hardware if row.variant == variant]
    if not any(row["stage"] == "bitstream" for row in rows):
        raise InputError(f"{run_dir} holds no bitstream of {variant!r}: set compile.until.")
    victims = {row.variant: row.model_dump() for row in results.victims}
    return {
        "run": config.run.name,
        "variant": variant,
        "model": config.model.name,
        "bits": config.model.bits,
        "dataset": config.data.name,
        "target": config.compile.target,
        "accuracy": {name: row["accuracy_engine"] for name, row in victims.items()},
        "engine": victims[variant]["engine"],
        "hardware": rows,
        "equivalence": [row.model_dump() for row in results.equivalence if row.variant == variant],
        "seconds": _seconds(build, built),
        "cycles": _cycles(build, design),
        "simulation": _simulation(design),
        "versions": dict(results.run.versions),
        "cores": os.cpu_count(),
    }


def merge(records: Sequence[Record], folder: Path) -> Path:
    """Put records into ``designs.json``, a record a run, and make the page of all; returns it."""
    designs = {record["run"]: record for record in read(folder)}
    designs |= {record["run"]: record for record in records}
    merged = [designs[name] for name in sorted(designs)]
    write_json(folder / FILE, merged)
    write_text(folder / "README.md", page(merged))
    return folder / "README.md"


def read(folder: Path) -> list[Record]:
    """The records in a folder; none where there are none."""
    path = folder / FILE
    return list(read_json(path)) if path.is_file() else []


def page(records: Sequence[Record]) -> str:
    """The records as a Markdown page."""
    lines = [
        "# Hardware benchmark",
        "",
        f"Made by `divqat bench hardware` from `{FILE}`, which has the versions and all figures.",
        "",
        *table(records),
        *beside_boards(records),
    ]
    for record in records:
        lines += _layers(record)
    return "\n".join(lines)


def headline_table(records: Sequence[Record]) -> list[str]:
    """The README's table: what was built, how large and how fast."""
    head = ("Network", "Test accuracy", "Logic cells", "Fmax", "Images/s at clock", "Mismatches")
    rows = []
    for record in sorted(records, key=_logic_cells):
        row, compared = record["hardware"][-1], record["equivalence"]
        rows.append(
            (
                _network(record),
                f"{100 * record['accuracy'][record['variant']]:.1f} %",
                f"{row['lut']:,.0f} ({100 * row['utilisation']['lut']:.1f} %)",
                f"{row['fmax_mhz']:.0f} MHz",
                f"{row['images_per_s']:,.0f} at {row['clock_mhz']:.3g} MHz",
                f"{sum(one['mismatches'] for one in compared)} in {len(compared)} comparisons",
            )
        )
    return pages.table(head, rows)


def table(records: Sequence[Record]) -> list[str]:
    """Two tables of all records: what was built, and how well it was predicted."""
    head = ["Network", "FF", "Block RAM", "Cycles an image", "LUT × cycles", "QONNX to bitstream"]
    head += ["RTL simulation", "Cycles predicted"]
    rows = []
    for record in sorted(records, key=_logic_cells):
        row, cycles = record["hardware"][-1], record["cycles"]
        rows.append(
            (
                _network(record),
                f"{row['ff']:,.0f}",
                f"{row['bram']:,.0f}",
                f"{row['cycles_per_image']:,.0f}",
                f"{row['lut'] * row['cycles_per_image'] / 1e6:,.1f} M",
                f"{sum(record['seconds'].values()):.0f} s",
                f"{record['simulation']['images_per_s']:,.0f} images/s",
                f"{cycles['worst']:.1%} off (FINN {cycles['worst_finn']:.1%})",
            )
        )
    return [_INTRODUCTION, "", *headline_table(records), *pages.table(head, rows)]


def beside_boards(records: Sequence[Record]) -> list[str]:
    """Our CIFAR-10 networks beside those that others ran on boards, by accuracy."""
    rows = [
        (
            one["accuracy"],
            one["design"],
            f"{one['device']}, a board",
            one["images_per_s"],
            one["latency_ms"],
            one["cells"],
            one["source"],
        )
        for one in read_json(_ANCHORS)
    ]
    for record in records:
        if record["dataset"] == "cifar10":
            row = record["hardware"][-1]
            design = f"**{record['model']} {record['bits']}**"
            latency = row["latency_cycles"] / row["clock_mhz"] / 1000
            cells = f"{row['lut'] / 1000:.0f} k LUT4 ({row['utilisation']['lut']:.0%}), "
            cells += f"{row['dsp']:.0f} multipliers"
            accuracy = record["accuracy"][record["variant"]]
            device = f"{row['device']}, simulated"
            made = f"`{FILE}`"
            rows.append((accuracy, design, device, row["images_per_s"], latency, cells, made))
    head = ("Design", "Device", "CIFAR-10", "Images/s", "Latency", "Cells", "Source")
    shown = [
        (
            design,
            device,
            f"{accuracy:.1%}",
            f"{rate:,.0f}",
            "–" if latency is None else f"{latency:.2f} ms",
            cells or "–",
            source,
        )
        for accuracy, design, device, rate, latency, cells, source in sorted(
            rows, key=lambda row: (-row[0], -row[3])
        )
    ]
    return ["## CIFAR-10 beside published designs", "", _BESIDE, "", *pages.table(head, shown)]


def _logic_cells(record: Record) -> float:
    return float(record["hardware"][-1]["lut"])


def _network(record: Record) -> str:
    about = f"{record['model']}, {record['bits']}, {record['dataset']}"
    return about if record["target"] == _USUAL else f"{about}, {record['target']}"


def _layers(record: Record) -> list[str]:
    """The layers' cycles, measured and predicted."""
    rows = [
        (
            row["name"],
            f"{row['measured']:,}",
            f"{row['predicted']:,}",
            "–" if row["finn"] is None else f"{row['finn']:,}",
        )
        for row in record["cycles"]["layers"]
    ]
    head = ("Layer", "RTL simulation", "predicted", "FINN's estimate")
    return [f"## {_network(record)}: cycles an image", "", *pages.table(head, rows)]


def _seconds(build: FinnBuild, built: Path) -> dict[str, float]:
    """Seconds from QONNX to the bitstream, by tool."""
    bitstream = read_json(built / "bitstream" / "report.json")["seconds"]
    design = read_json(built / "speed.json")["seconds"]
    return {"finn": round(sum(build.seconds.values()), 2), "design": design, **bitstream}


def _cycles(build: FinnBuild, design: Design) -> Record:
    """Each layer's cycles alone: simulated, predicted by us, estimated by FINN."""
    measured = measure_layers(design)
    prediction = load_prediction(build)
    predicted: Mapping[str, int] = {} if prediction is None else prediction.cycles
    finn = {node.name: node.finn_cycles for node in design.nodes}
    layers = [
        {
            "name": name,
            "measured": measured[name],
            "predicted": predicted[name],
            "finn": finn[name] or None,  # FINN estimates no cycles of converters
        }
        for name in measured
        if name in predicted
    ]

    return {
        "layers": layers,
        "worst": _worst(layers, "predicted"),
        "worst_finn": _worst(layers, "finn"),
    }


def _worst(layers: Sequence[Record], key: str) -> float:
    """The largest relative error of a layer's cycles, where there is a figure."""
    errors = [abs(row[key] / row["measured"] - 1) for row in layers if row[key] is not None]
    return max(errors, default=0.0)


def _simulation(design: Design) -> Record:
    """Images a second in Verilator, warm: one process a core."""
    slowest = max(node.finn_cycles for node in design.nodes)
    count = min(max(_SIMULATED_CYCLES // slowest, 64), 10_000)
    unit = np.random.default_rng(0).random((count, *design.input_shape), np.float32)
    images = design.input_step.declared.spread(unit)
    with RtlEngine(design) as engine:
        engine.accumulators(images[:64])
        start = time.perf_counter()
        engine.accumulators(images)
        seconds = time.perf_counter() - start
    return {"images": len(images), "seconds": seconds, "images_per_s": len(images) / seconds}
