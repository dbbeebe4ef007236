"""The hardware benchmark of finished runs: what was built, how large, how fast, how exact.

One JSON a run, and a table made from all of them. Nothing is typed in by hand: accuracy,
equivalence and cells come from the run; cycles and simulation speed are measured here.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from divqat_brevitas.errors import InputError
from divqat_brevitas.files import read_json, write_json, write_text
from fpga_flow.compile import FinnBuild
from fpga_flow.compile.prediction import load_prediction
from fpga_flow.engines.isolated_layers import measure_layers
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.report.results import read as read_results
from fpga_flow.rtl import Design

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


def write(records: Sequence[Record], folder: Path) -> Path:
    """Write each record's JSON, and the table of all that are in ``folder``; returns the table."""
    for record in records:
        write_json(folder / f"{record['run']}.json", record)
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    write_text(folder / "README.md", table(found))
    return folder / "README.md"


def table(records: Sequence[Record]) -> str:
    """The records as a Markdown page."""
    rows = [_line(record) for record in records]
    head = list(rows[0])
    lines = [
        "# Hardware benchmark",
        "",
        "Made by `divqat bench hardware` from the JSON files beside it; each says versions and "
        "all figures. Trained networks, one seed. LUT, FF, block RAM and Fmax are nextpnr's for "
        "an LFE5U-85F-6 after place and route; nothing ran on a board. Seconds are of a shared "
        "2-core machine. Accuracy is of test data, by the engine named. FINN's estimates of cycles "
        "are of FINN's modules: pools, and thresholds behind slow layers, are ours here.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(str(cell) for cell in row.values())} |" for row in rows),
        "",
    ]
    for record in records:
        lines += _layers(record)
    return "\n".join(lines)


def _line(record: Record) -> dict[str, object]:
    row = record["hardware"][-1]
    cycles = record["cycles"]
    compared = record["equivalence"]
    return {
        "Network": f"{record['model']} {record['bits']}, {record['dataset']}",
        "Accuracy": f"{record['accuracy'][record['variant']]:.2%} ({record['engine']})",
        "Logic cells": f"{row['lut']:,.0f} ({row['utilisation']['lut']:.1%})",
        "FF": f"{row['ff']:,.0f}",
        "Block RAM": f"{row['bram']:,.0f}",
        "Fmax": f"{row['fmax_mhz']:.1f} MHz",
        "Clock": f"{row['clock_mhz']:g} MHz",
        "Cycles an image": f"{row['cycles_per_image']:,.0f}",
        "Images/s": f"{row['images_per_s']:,.0f}",
        "LUT x cycles": f"{row['lut'] * row['cycles_per_image'] / 1e6:,.1f} M",
        "QONNX to bitstream": f"{sum(record['seconds'].values()):.0f} s",
        "RTL simulation": f"{record['simulation']['images_per_s']:,.0f} images/s",
        "Cycles predicted": f"{cycles['worst']:.1%} off (FINN {cycles['worst_finn']:.1%})",
        "Mismatches": f"{sum(one['mismatches'] for one in compared)} in {len(compared)} rows",
    }


def _layers(record: Record) -> list[str]:
    """The layers' cycles, measured and predicted."""
    return [
        f"## {record['model']} {record['bits']}, {record['dataset']}: cycles an image",
        "",
        "| Layer | RTL simulation | predicted | FINN's estimate |",
        "|---|---|---|---|",
        *(
            f"| {row['name']} | {row['measured']:,} | {row['predicted']:,} | "
            f"{'–' if row['finn'] is None else format(row['finn'], ',')} |"
            for row in record["cycles"]["layers"]
        ),
        "",
    ]


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
