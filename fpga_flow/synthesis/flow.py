"""A design to a bitstream with only open tools: slang, yosys, nextpnr and the family's packer."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from divqat_brevitas.errors import CheckFailedError, InputError
from divqat_brevitas.files import read_json, write_json
from divqat_brevitas.short_repr import ShortRepr
from fpga_flow.rtl.design import Design
from fpga_flow.synthesis import synth
from fpga_flow.synthesis.bitstream_report import BitstreamReport
from fpga_flow.synthesis.cells import (
    OUTSIDE,
    LayerCells,
    chain_ends,
    core_clock_names,
    count,
    cut_carries,
    of_nodes,
    top_module,
)
from fpga_flow.synthesis.route import REPORT, ROUTED, DoesNotFitError, place_and_route
from fpga_flow.synthesis.synth import NETLIST, ChipSources
from fpga_flow.synthesis.tools import Deadline, ToolFailedError, run_tool, versions
from fpga_flow.targets import OpenTarget

Over = Mapping[str, tuple[int, int]]  # kind of cell -> (needed, available)
_UNITS = {"lut": "logic cells", "ff": "flip-flops", "bram": "block RAMs", "dsp": "multipliers"}


@dataclass(frozen=True)
class Shortfall(ShortRepr):
    """Why a design is no bitstream: what a folding would have to change."""

    over: Over  # empty where it fits
    fmax_mhz: float | None  # reached; None where it didn't fit
    clock_mhz: float | None  # asked for
    largest: str  # the layer that takes most of the resource that is short
    # Layers the slowest path goes through, in order; empty where it didn't fit
    slowest_path: tuple[str, ...]
    layers: tuple[LayerCells, ...]  # the cells of each


class NoBitstreamError(CheckFailedError):
    """The design doesn't fit the device, or misses the clock asked for (exit code 1)."""

    def __init__(self, message: str, shortfall: Shortfall, folder: Path) -> None:
        self.shortfall = shortfall
        self.folder = folder
        super().__init__(message)


Advice = Callable[[Shortfall], str | None]


def largest_layer(layers: Sequence[LayerCells], over: Over) -> str:
    """The layer with most of the resource that is shortest; of LUTs where none is short."""
    kind = max(over, key=lambda k: over[k][0] / max(over[k][1], 1), default="lut")
    named = [layer for layer in layers if layer.name != OUTSIDE]
    if not named:
        return OUTSIDE
    return max(named, key=lambda layer: int(getattr(layer.cells, kind))).name


def no_bitstream(
    target: OpenTarget, short: Shortfall, advice: Advice | None, folder: Path
) -> NoBitstreamError:
    """The error for a shortfall, with what helps; ``folder`` keeps what was made."""
    largest = next((layer for layer in short.layers if layer.name == short.largest), None)
    if short.over:
        lacks = ", ".join(
            f"{needed:,} {_UNITS[kind]} of {available:,} ({100 * needed / max(available, 1):.0f} %)"
            for kind, (needed, available) in short.over.items()
        )
        said = f"The design doesn't fit {target.name}: it needs {lacks}."
        remedy = "Fold it more (a lower PE or SIMD there), or take a larger device."
    else:
        fmax, clock = short.fmax_mhz or 0.0, short.clock_mhz or 0.0
        said = f"The design reaches {fmax:.1f} MHz on {target.name}, and {clock:g} MHz were asked."
        if short.slowest_path:
            said += f" The slowest path goes through {' -> '.join(short.slowest_path)}."
        remedy = "Ask for a lower clock, fold that layer more, or try another seed."
    if largest is not None:
        cells = largest.cells
        said += (
            f" The largest layer is {largest.name}: {cells.lut:,} LUTs, {cells.ff:,} flip-flops, "
            f"{cells.bram} block RAMs."
        )
    helps = advice(short) if advice is not None else None
    return NoBitstreamError(
        f"{said} {helps or remedy} What was made is in {folder}.", short, folder
    )


# Where no clock is asked for: above what the networks reach, so that all of the placer's and
# router's effort goes into speed.
_EAGER_MHZ = 120.0
_KEPT = {synth.CORE_NETLIST, NETLIST, ROUTED, REPORT, synth.LOGS}


def build_bitstream(
    design: Design,
    target: OpenTarget,
    folder: Path,
    *,
    chip: ChipSources | None = None,
    freq_mhz: float | None = None,
    seed: int = 1,
    dsp: bool = False,
    advice: Advice | None = None,
    timeout_s: float = 3600,
) -> BitstreamReport:
    """Make a bitstream.

    ``folder`` appears whole or not at all. Where it fails, what was made stays in
    ``<folder>-failed``, with the logs.

    Args:
        design: the network's hardware.
        target: the device.
        folder: gets the netlist, the routed design, the bitstream, ``report.json``.
        chip: host interface and pins; None: the network with five pins anywhere, for measuring.
        freq_mhz: clock to be met; None: the chip's, or none.
        seed: of nextpnr: another one gives another placement, a few per cent faster or slower.
        dsp: use the device's multipliers.
        advice: gives a sentence that helps, such as a folding that would fit.
        timeout_s: for everything.

    Raises:
        InputError: the chip's pins are of another family.
        NoBitstreamError: it doesn't fit, or the clock is missed.
        ToolMissingError: a tool is not installed.
        ToolFailedError: a tool failed, or time is up.
    """
    tools = target.family.tools
    found = versions(("slang", "yosys", tools.place, tools.pack))
    if chip is not None and Path(chip.constraints).suffix != Path(tools.pins).suffix:
        raise InputError(
            f"The chip's pins ({chip.constraints}) are not of {target.name}, whose tools read "
            f"{Path(tools.pins).suffix} files. Write the chip for a board with that device."
        )
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    failed = folder.with_name(f"{folder.name}-failed")
    clock = freq_mhz or (chip.clock_mhz if chip else None)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        try:
            record = _build(design, target, work, chip, clock, seed, dsp, timeout_s)
            shortfall = record.pop("shortfall")
            if shortfall is not None:
                raise no_bitstream(target, shortfall, advice, failed)
        except ToolFailedError as e:
            _replace(work, failed)
            raise ToolFailedError(e.tool, e.reason, failed / e.log.relative_to(work)) from e
        except NoBitstreamError:
            _replace(work, failed)
            raise
        for path in work.iterdir():
            if path.name not in {*_KEPT, tools.pins, tools.bitstream, *tools.more}:
                _remove(path)
        report = BitstreamReport(
            folder=work,
            target=target.name,
            part=target.part,
            design_sha256=design.digest,
            chip=chip.name if chip else None,
            clock_mhz=clock,
            seed=seed,
            versions=found,
            **record,
        )
        report.save()
        _replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _remove(failed)
    return replace(report, folder=folder)


def _build(
    design: Design,
    target: OpenTarget,
    work: Path,
    chip: ChipSources | None,
    clock: float | None,
    seed: int,
    dsp: bool,
    timeout_s: float,
) -> dict[str, Any]:
    """Fields of the report, and ``shortfall``, which is None where there is none."""
    deadline, family = Deadline(timeout_s), target.family
    tools = family.tools
    top, around = synth.gather(design, chip, work)
    pins = (
        target.bare_pins
        if chip is None
        else (chip.folder / chip.constraints).read_text(encoding="utf-8")
    )
    (work / tools.pins).write_text(pins, encoding="utf-8")
    seconds = {"slang": synth.elaborate(design, work, top, around, family, deadline)}
    seconds["yosys"] = synth.map_cells(design, work, top, family, deadline, dsp=dsp)
    netlist = read_json(work / NETLIST)
    module = top_module(netlist)
    cut_carries(module)
    write_json(work / NETLIST, netlist)
    types = {name: cell["type"] for name, cell in module["cells"].items()} | chain_ends(module)
    layers = of_nodes(design.nodes)
    counted = layers.count(types, family)

    def short(over: Over, fmax: float | None = None, path: tuple[str, ...] = ()) -> Shortfall:
        return Shortfall(over, fmax, clock, largest_layer(counted, over), path, counted)

    try:
        routed = place_and_route(
            work,
            target,
            netlist=NETLIST,
            freq_mhz=clock or _EAGER_MHZ,
            seed=seed,
            clock_names=core_clock_names(module, family),
            layers=layers,
            deadline=deadline,
        )
    except DoesNotFitError as e:
        return {"shortfall": short(e.over)}
    seconds[tools.place] = routed.seconds
    if clock is not None and (routed.fmax_mhz < clock or (chip is not None and routed.missed)):
        return {"shortfall": short({}, routed.fmax_mhz, routed.slowest_path)}
    arguments = [*target.pack, *tools.pack_arguments]
    log = work / synth.LOGS / f"{tools.pack}.log"
    seconds[tools.pack] = run_tool(tools.pack, arguments, work, log, deadline)
    return {
        "shortfall": None,
        "fmax_mhz": routed.fmax_mhz,
        "cells": count(types.values(), family),
        "layers": counted,
        "comb": routed.used["lut"],
        "placed_ff": routed.used["ff"],
        "utilisation": {kind: routed.used[kind] / routed.available[kind] for kind in routed.used},
        "slowest_path": routed.slowest_path,
        "bitstream_bytes": (work / tools.bitstream).stat().st_size,
        "seconds": {tool: round(s, 2) for tool, s in seconds.items()},
    }


def _replace(source: Path, target: Path) -> None:
    """Rename the folder ``source`` to ``target``, in place of what was there."""
    source.chmod(0o755)  # mkdtemp makes folders private
    _remove(target)
    source.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
